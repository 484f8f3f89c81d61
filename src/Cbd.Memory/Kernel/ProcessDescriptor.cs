using System.Globalization;
using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// A pidfd: names one process for good, also after its number was given to another. Readable when the process has ended.
/// </summary>
public sealed unsafe class ProcessDescriptor : IDisposable
{
    internal ProcessDescriptor(int processId, FileDescriptor descriptor)
    {
        ProcessId = processId;
        Descriptor = descriptor;
    }

    /// <summary>The number under which it was opened; another process may have it once this one has ended.</summary>
    public int ProcessId { get; }

    /// <summary>Readable when the process has ended.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The process of that number; null if there is none.</summary>
    public static ProcessDescriptor? TryOpen(int processId)
    {
        nint descriptor = LibC.SystemCall(SyscallPidfdOpen, processId, 0, 0, 0, 0, 0);
        if (descriptor >= 0)
            return new ProcessDescriptor(processId, FileDescriptor.Own((int)descriptor, $"process {processId}"));
        return LibC.LastErrno == ESRCH ? null : throw SystemCallException.Last("pidfd_open", $"process {processId}");
    }

    /// <summary>
    /// Whether what <c>/proc</c> has under that number is this process. It is another where <c>/proc</c> was mounted in another process
    /// namespace than this one: numbers of the two have nothing to do with each other. False also if nothing tells.
    /// </summary>
    public bool IsInProc(int number)
    {
        foreach (string line in File.ReadLines($"/proc/self/fdinfo/{Descriptor.Number}"))
        {
            if (line.StartsWith("Pid:", StringComparison.Ordinal))
                return line.AsSpan("Pid:".Length).Trim().SequenceEqual(number.ToString(CultureInfo.InvariantCulture));
        }

        return false;
    }

    /// <summary>Sends SIGKILL; nothing if the process has ended already.</summary>
    public void Kill() => Send(SignalKill);

    /// <summary>Sends SIGHUP, SIGINT, SIGQUIT or SIGTERM; nothing if the process has ended already.</summary>
    public void Send(PosixSignal signal) => Send(ProcessSignals.NumberOf(signal));

    private void Send(int signal)
    {
        nint result = LibC.SystemCall(SyscallPidfdSendSignal, Descriptor.Number, signal, 0, 0, 0, 0);
        GC.KeepAlive(this);
        if (result < 0 && LibC.LastErrno != ESRCH)
            throw SystemCallException.Last("pidfd_send_signal", $"process {ProcessId}");
    }

    /// <summary>Waits until the process has ended; false if the time is over first.</summary>
    public bool WaitForExit(int timeoutMs)
    {
        long deadline = KernelClock.MonotonicNs + timeoutMs * 1_000_000L;
        for (long left = timeoutMs * 1000L; left >= 0; left = (deadline - KernelClock.MonotonicNs) / 1000)
        {
            if (Descriptor.WaitReadable(left))
                return true;
            if (left == 0)
                return false;
        }

        return false;
    }

    public void Dispose() => Descriptor.Dispose();
}
