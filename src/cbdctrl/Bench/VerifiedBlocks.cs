using System.Runtime.InteropServices;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>
/// What every block of one job must hold: words made of its offset, its version and their place. Blocks that this run
/// did not write are not judged. Single-threaded.
/// </summary>
internal sealed class VerifiedBlocks(long start, long blockBytes, long blocks)
{
    private readonly uint[] _written = new uint[blocks];
    private readonly bool[] _busy = new bool[blocks];

    public bool IsBusy(long block) => _busy[block];

    public bool IsWritten(long block) => _written[block] != 0;

    public void Begin(long block) => _busy[block] = true;

    /// <summary>Its request has ended; <paramref name="wrote"/>: with the next version on the disk.</summary>
    public void End(long block, bool wrote)
    {
        _busy[block] = false;
        if (wrote)
            _written[block]++;
    }

    /// <summary>Makes the content of the block's next version.</summary>
    public void Fill(long block, Span<byte> data)
    {
        ulong seed = Seed(block, _written[block] + 1);
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
        for (int i = 0; i < words.Length; i++)
            words[i] = seed + (ulong)i;
    }

    /// <summary>Whether the data is the block's last written version; true if it was never written.</summary>
    public bool Holds(long block, ReadOnlySpan<byte> data)
    {
        if (_written[block] == 0)
            return true;
        ulong seed = Seed(block, _written[block]);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(data);
        for (int i = 0; i < words.Length; i++)
        {
            if (words[i] != seed + (ulong)i)
                return false;
        }

        return true;
    }

    private ulong Seed(long block, uint version) =>
        ((ulong)(start + block * blockBytes) ^ ((ulong)version << 40)) * 0x9E3779B97F4A7C15UL;
}
