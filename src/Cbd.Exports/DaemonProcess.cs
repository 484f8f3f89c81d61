using System.Globalization;

namespace Cbd.Exports;

/// <summary>
/// Processes by number, as a mark of whose a kernel's device is. A number means something only in the first process id
/// namespace, which daemons outside containers share; 0 stands for a process in any other.
/// </summary>
internal static class DaemonProcess
{
    /// <summary>The inode of the first process id namespace (linux/proc_ns.h).</summary>
    private const string FirstNamespace = "pid:[4026531836]";

    /// <summary>Place of the start time among the fields of /proc/PID/stat behind the name (proc_pid_stat(5)).</summary>
    private const int StartTimeField = 19;

    private static readonly bool s_isInFirstNamespace =
        File.ResolveLinkTarget("/proc/self/ns/pid", returnFinalTarget: false)?.Name == FirstNamespace;

    /// <summary>This process, or 0.</summary>
    internal static int OwnNumber { get; } = s_isInFirstNamespace ? Environment.ProcessId : 0;

    /// <summary>When this process began, ticks since boot.</summary>
    internal static long OwnStartTicks { get; } = StartTicks(Environment.ProcessId) ?? 0;

    /// <summary>
    /// The process has ended for sure. Without a start time a number that was given to another process counts as alive.
    /// </summary>
    internal static bool IsGone(int number, long? startTicks)
    {
        if (number <= 0 || !s_isInFirstNamespace)
            return false;
        long? actual = StartTicks(number);
        return actual is null || (startTicks is not null && actual != startTicks);
    }

    private static long? StartTicks(int number)
    {
        string text;
        try
        {
            text = File.ReadAllText($"/proc/{number.ToString(CultureInfo.InvariantCulture)}/stat");
        }
        catch (IOException)
        {
            // No such file, or no such process any more while it is read.
            return null;
        }

        // The name, in parentheses, may hold spaces and parentheses itself.
        string[] fields = text[(text.LastIndexOf(')') + 2)..].Split(' ');
        return long.Parse(fields[StartTimeField], CultureInfo.InvariantCulture);
    }
}
