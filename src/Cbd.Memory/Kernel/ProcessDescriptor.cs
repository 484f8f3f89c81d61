using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// A pidfd: names one process for good, also after its number was given to another. Readable when the process has ended.
/// </summary>
public sealed class ProcessDescriptor : IDisposable
{
    private const int SignalKill = 9;

    private readonly int _processId;

    private ProcessDescriptor(int processId, FileDescriptor descriptor)
    {
        _processId = processId;
        Descriptor = descriptor;
    }

    /// <summary>Readable when the process has ended.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Number of this process.</summary>
    public static int CurrentProcessId => LibC.GetPid();

    /// <summary>The process of that number; null if there is none.</summary>
    public static ProcessDescriptor? TryOpen(int processId)
    {
        nint descriptor = LibC.SystemCall(SyscallPidfdOpen, processId, 0, 0, 0, 0, 0);
        if (descriptor >= 0)
            return new ProcessDescriptor(processId, FileDescriptor.Own((int)descriptor, $"process {processId}"));
        return Marshal.GetLastPInvokeError() == ESRCH ? null : throw SystemCallException.Last("pidfd_open", $"process {processId}");
    }

    /// <summary>Sends SIGKILL; nothing if the process has ended already.</summary>
    public void Kill()
    {
        nint result = LibC.SystemCall(SyscallPidfdSendSignal, Descriptor.Number, SignalKill, 0, 0, 0, 0);
        GC.KeepAlive(this);
        if (result < 0 && Marshal.GetLastPInvokeError() != ESRCH)
            throw SystemCallException.Last("pidfd_send_signal", $"process {_processId}");
    }

    /// <summary>Waits until the process has ended; false if the time is over first.</summary>
    public bool WaitForExit(int timeoutMs)
    {
        using var poller = new EventPoller();
        poller.Add(Descriptor, PollEvents.Readable, 0);
        long deadline = KernelClock.MonotonicNs + timeoutMs * 1_000_000L;
        Span<PollResult> results = stackalloc PollResult[1];
        for (long left = timeoutMs * 1000L; left >= 0; left = (deadline - KernelClock.MonotonicNs) / 1000)
        {
            if (poller.Wait(results, left) > 0)
                return true;
        }

        return false;
    }

    public void Dispose() => Descriptor.Dispose();
}
