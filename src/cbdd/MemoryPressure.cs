using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>
/// Makes the daemon fit to serve its own kernel when memory is short: where a device of this machine has its disk on
/// this machine, both daemons are in the way of every page that is written back. Needs capabilities that root has;
/// without them the daemon does everything else.
/// </summary>
internal static class MemoryPressure
{
    /// <summary>
    /// Starts the program again as an I/O flusher, before it has threads that are none. Returns if it is one already,
    /// or may not be.
    /// </summary>
    public static void BecomeIoFlusher(string[] words)
    {
        // Not /proc/self/exe: the name of the process would be 'exe'.
        if (!ProcessMemory.IsIoFlusher && Environment.ProcessPath is { } program)
            _ = ProcessMemory.RestartAsIoFlusher(program, [program, .. words]);
    }

    /// <summary>Locks the memory, and warns of what could not be had.</summary>
    public static void Prepare(ILogger logger)
    {
        var errno = -ProcessMemory.LockAll();
        if (errno == 0 && ProcessMemory.IsIoFlusher)
            return;
        var missing = errno == 0 ? "CAP_SYS_RESOURCE" : ProcessMemory.IsIoFlusher ? "CAP_IPC_LOCK" : "CAP_SYS_RESOURCE and CAP_IPC_LOCK";
        logger.LogWarning("{Missing} is missing: a device that this machine uses itself may hang when memory is short; {Remedy}", missing, Privilege.Remedy(missing));
    }
}
