using Cbd.Blocks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>What a disk of 512-byte blocks must hold; what was discarded may be anything until written again.</summary>
internal sealed class BlockModel(int blocks)
{
    private readonly byte[] _bytes = new byte[blocks * 512];
    private readonly bool[] _unknown = new bool[blocks];

    /// <summary>Does the request on the disk and here, and compares.</summary>
    public void Apply(DiskDriver driver, BlockOperation operation, int block, int count, BlockFlags flags, int seed)
    {
        int offset = block * 512;
        int length = count * 512;
        switch (operation)
        {
            case BlockOperation.Read:
                Verify(driver, block, count);
                break;
            case BlockOperation.Write:
                new Random(seed).NextBytes(_bytes.AsSpan(offset, length));
                Array.Fill(_unknown, false, block, count);
                Assert.Equal(0, driver.Write(offset, _bytes.AsSpan(offset, length), flags).Error);
                break;
            case BlockOperation.Flush:
                Assert.Equal(0, driver.Do(operation, 0, 0).Error);
                break;
            case BlockOperation.Discard:
                Array.Fill(_unknown, true, block, count);
                Assert.Equal(0, driver.Do(operation, offset, length, flags).Error);
                break;
            case BlockOperation.WriteZeroes:
                int error = driver.Do(operation, offset, length, flags).Error;
                if ((flags & BlockFlags.FastZero) != 0 && error == Errno.EOPNOTSUPP)
                    break;
                Assert.Equal(0, error);
                _bytes.AsSpan(offset, length).Clear();
                Array.Fill(_unknown, false, block, count);
                break;
            case BlockOperation.BlockStatus:
                VerifyStatus(driver, block, count);
                break;
            default:
                Assert.Equal(0, driver.Do(operation, offset, length).Error);
                break;
        }
    }

    public void VerifyAll(DiskDriver driver) => Verify(driver, 0, blocks);

    private void Verify(DiskDriver driver, int block, int count)
    {
        byte[] read = driver.Read(block * 512, count * 512);
        for (int i = 0; i < count; i++)
        {
            if (!_unknown[block + i])
                Assert.True(_bytes.AsSpan((block + i) * 512, 512).SequenceEqual(read.AsSpan(i * 512, 512)), $"block {block + i} differs");
        }
    }

    private void VerifyStatus(DiskDriver driver, int block, int count)
    {
        foreach (var extent in driver.Status(block * 512, count * 512, room: 3))
        {
            Assert.Equal(0, extent.LengthBytes % 512);
            int extentBlocks = (int)(extent.LengthBytes / 512);
            for (int i = block; i < block + extentBlocks && (extent.State & BlockExtentState.Zero) != 0; i++)
            {
                if (!_unknown[i])
                    Assert.False(_bytes.AsSpan(i * 512, 512).ContainsAnyExcept((byte)0), $"block {i} has data but was reported as zeroes");
            }
            block += extentBlocks;
        }
    }
}
