using System.Globalization;

namespace Cbd.Exports.Kernel;

/// <summary>
/// The process that serves a device of this kernel, as the device's mark of ownership has it: so what a killed daemon left
/// is told from what a living one uses, without any file.
/// </summary>
/// <param name="Id">Number of the process; 0 if the mark's reader could do nothing with it.</param>
/// <param name="StartTicks">When it began, clock ticks since boot; null if the mark has no room for that.</param>
/// <param name="Namespace">The namespace in which the number counts (inode).</param>
internal readonly record struct OwnerProcess(int Id, long? StartTicks, ulong Namespace)
{
    /// <summary>The inode of the first process id namespace (linux/proc_ns.h), which daemons outside containers share.</summary>
    internal const ulong FirstNamespace = 4026531836;

    /// <summary>Place of the start time among the fields of /proc/PID/stat behind the name (proc_pid_stat(5)).</summary>
    private const int StartTimeField = 19;

    private static readonly ulong s_ownNamespace = NamespaceOf(KernelFiles.LinkOf("/proc/self/ns/pid") ?? "");

    /// <summary>This process.</summary>
    internal static OwnerProcess Self { get; } = new(Environment.ProcessId, StartOf(Environment.ProcessId, out _) ?? 0, s_ownNamespace);

    /// <summary>For marks without a namespace: this process in the first one; number 0 in any other.</summary>
    internal static OwnerProcess SelfInFirstNamespace => s_ownNamespace == FirstNamespace ? Self : new OwnerProcess(0, Self.StartTicks, FirstNamespace);

    /// <summary>
    /// The process has ended for sure: it would be seen here if it lived. Without a start time a number that was given to
    /// another process counts as alive.
    /// </summary>
    internal bool IsGone
    {
        get
        {
            if (Id <= 0 || Namespace != s_ownNamespace)
                return false;
            long? actual = StartOf(Id, out bool isUnknown);
            return !isUnknown && (actual is null || (StartTicks is not null && actual != StartTicks && HasOwnTime(Id)));
        }
    }

    /// <summary>Reads a number of a mark: digits alone.</summary>
    internal static bool TryParse(ReadOnlySpan<char> text, out int id) => int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out id);

    /// <inheritdoc cref="TryParse(ReadOnlySpan{char}, out int)"/>
    internal static bool TryParse(ReadOnlySpan<char> text, out long ticks) => long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ticks);

    /// <summary>
    /// Start times are counted in the time namespace of who reads them. What a process of another one wrote of itself is another number
    /// here; a process that has its number now, and is of this one, is not it.
    /// </summary>
    private static bool HasOwnTime(int process) =>
        KernelFiles.LinkOf("/proc/self/ns/time") is not { } own || KernelFiles.LinkOf($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/ns/time") == own;

    /// <summary>Null if there is no such process, or if that cannot be told.</summary>
    private static long? StartOf(int process, out bool isUnknown)
    {
        isUnknown = false;
        string text;
        try
        {
            text = File.ReadAllText($"/proc/{process.ToString(CultureInfo.InvariantCulture)}/stat");
        }
        catch (IOException)
        {
            // No such file, or no such process any more while it is read.
            return null;
        }
        catch (UnauthorizedAccessException)
        {
            isUnknown = true;
            return null;
        }

        // The name, in parentheses, may hold spaces and parentheses itself.
        string[] fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        isUnknown = !TryParse(fields.ElementAtOrDefault(StartTimeField), out long start);
        return isUnknown ? null : start;
    }

    /// <summary>Of a link as "pid:[4026531836]".</summary>
    private static ulong NamespaceOf(string link) =>
        link.StartsWith("pid:[", StringComparison.Ordinal) && ulong.TryParse(link.AsSpan(5).TrimEnd(']'), NumberStyles.None, CultureInfo.InvariantCulture, out ulong inode) ? inode : 0;
}
