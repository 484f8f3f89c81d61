using static Cbd.Memory.Errno;
using static Cbd.Memory.IoUringCalls;

namespace Cbd.Memory;

/// <content>Commands for the driver behind the registered file (IORING_OP_URING_CMD, Linux 5.19).</content>
public sealed unsafe partial class IoUring
{
    /// <summary>Most bytes of a command's argument in a ring of usual, and of wide, entries.</summary>
    public const int MaxCommandBytes = 16;

    /// <inheritdoc cref="MaxCommandBytes"/>
    public const int MaxWideCommandBytes = 80;

    /// <summary>Entries are 64 bytes, wide ones 128.</summary>
    private const int EntryShift = 6;
    private const int WideEntryShift = 7;

    /// <summary>
    /// As <see cref="TryCreate(int, out IoUring?)"/>, with entries of 128 bytes (IORING_SETUP_SQE128), which have room
    /// for commands of up to <see cref="MaxWideCommandBytes"/>. EINVAL where the kernel is older than 5.19.
    /// </summary>
    public static int TryCreateWide(int entries, out IoUring? ring) => TryCreate(entries, wide: true, out ring);

    /// <summary>
    /// Prepares a command for the registered file's driver; false if the ring is full. The completion's result is the
    /// driver's. What the argument points at belongs to the driver until then.
    /// </summary>
    public bool PrepareCommand(uint command, ReadOnlySpan<byte> argument, ulong userData)
    {
        int room = _entryShift == WideEntryShift ? MaxWideCommandBytes : MaxCommandBytes;
        ArgumentOutOfRangeException.ThrowIfGreaterThan(argument.Length, room, nameof(argument));
        // The code of the command lies in the low half of the offset; the high half must be zero.
        if (!Prepare(OperationCommand, command, 0, 0, 0, userData))
            return false;
        // SAFETY: the entry has this much room behind its fields, checked above.
        var place = new Span<byte>((byte*)EntryAt(_preparedTail - 1) + CommandOffset, room);
        argument.CopyTo(place);
        place[argument.Length..].Clear();
        return true;
    }

    /// <summary>
    /// Runs one command in a ring that is used for nothing else, and waits for its end. Returns the driver's result;
    /// ETIMEDOUT if the time is over first: the ring has to be given up then, and what the command points at kept.
    /// </summary>
    public int RunCommand(uint command, ReadOnlySpan<byte> argument, int timeoutMs)
    {
        if (!PrepareCommand(command, argument, 0))
            return -EBUSY;
        long deadline = KernelClock.MonotonicNs + timeoutMs * 1_000_000L;
        while (true)
        {
            long left = (deadline - KernelClock.MonotonicNs) / 1000;
            EnterAndWait((int)Math.Clamp(left, 1, int.MaxValue));
            if (TryReap(out _, out int result))
                return result;
            if (left <= 0)
                return -ETIMEDOUT;
        }
    }
}
