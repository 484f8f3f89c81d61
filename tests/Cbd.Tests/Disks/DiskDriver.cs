using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>Drives one queue of a disk: one request at a time, or many by hand.</summary>
internal sealed class DiskDriver : IDisposable
{
    private readonly BlockCompletion[] _completions = new BlockCompletion[256];
    private ulong _cookie;

    public DiskDriver(IBlockDevice disk, int depth = 64, long bufferBytes = 1 << 20, bool register = true)
    {
        Buffer = new NativeBuffer(bufferBytes);
        Queue = disk.OpenQueue(depth, register ? Buffer : null);
    }

    public NativeBuffer Buffer { get; }

    public IBlockQueue Queue { get; }

    public BlockCompletion Do(
        BlockOperation operation, long offset, long length, BlockFlags flags = 0, BufferSlice data = default)
    {
        var request = new BlockRequest(++_cookie, operation, flags, offset, length, data);
        Assert.True(Queue.TrySubmit(request));
        var completion = Next();
        Assert.Equal(_cookie, completion.Cookie);
        return completion;
    }

    /// <summary>Waits for one completion; more than one is a bug of the caller.</summary>
    public BlockCompletion Next()
    {
        while (true)
        {
            int count = Queue.Poll(_completions);
            Assert.InRange(count, 0, 1);
            if (count == 1)
                return _completions[0];
            Queue.Wait(1_000_000);
        }
    }

    public BufferSlice Slice(long offset, int length) => new(Buffer, offset, length);

    public BlockCompletion Write(long offset, ReadOnlySpan<byte> bytes, BlockFlags flags = 0)
    {
        bytes.CopyTo(Buffer.GetSpan(0, bytes.Length));
        return Do(BlockOperation.Write, offset, bytes.Length, flags, Slice(0, bytes.Length));
    }

    public byte[] Read(long offset, int length)
    {
        Buffer.GetSpan(0, length).Fill(0xEE);
        var completion = Do(BlockOperation.Read, offset, length, data: Slice(0, length));
        Assert.Equal(0, completion.Error);
        Assert.Equal(length, completion.Result);
        return Buffer.GetSpan(0, length).ToArray();
    }

    /// <summary>The extents of the whole range, asked for until it is covered.</summary>
    public List<BlockExtent> Status(long offset, long length, int room = 64)
    {
        var extents = new List<BlockExtent>();
        while (length > 0)
        {
            var completion = Do(
                BlockOperation.BlockStatus, offset, length, data: Slice(0, room * BlockExtent.EncodedSizeBytes));
            Assert.Equal(0, completion.Error);
            Assert.True(completion.Result > 0 && completion.Result % BlockExtent.EncodedSizeBytes == 0);
            Assert.True(completion.Result <= room * BlockExtent.EncodedSizeBytes);
            for (int i = 0; i < completion.Result; i += BlockExtent.EncodedSizeBytes)
            {
                var extent = BlockExtent.Decode(Buffer.GetSpan(i, BlockExtent.EncodedSizeBytes));
                Assert.InRange(extent.LengthBytes, 1, length);
                extents.Add(extent);
                offset += extent.LengthBytes;
                length -= extent.LengthBytes;
            }
        }
        return extents;
    }

    public void Dispose()
    {
        Queue.Dispose();
        Buffer.Dispose();
    }
}
