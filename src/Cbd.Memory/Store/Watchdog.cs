using System.Globalization;

namespace Cbd.Memory.Store;

/// <summary>What a service manager expects of this process in the way of signs of life (sd_watchdog_enabled(3)).</summary>
public static class Watchdog
{
    /// <summary>
    /// Reads WATCHDOG_USEC and WATCHDOG_PID, and removes them from this process's environment. How long the manager waits for a sign of life,
    /// milliseconds; null if it does not, or not for this process's. What is no such number, 0 among them, is as if it were not there.
    /// </summary>
    public static long? TakeFromEnvironment()
    {
        string? text = GivenDescriptors.TakeVariable("WATCHDOG_USEC");
        string? process = GivenDescriptors.TakeVariable("WATCHDOG_PID");
        if (text is null || (process is not null && process != Environment.ProcessId.ToString(CultureInfo.InvariantCulture)))
            return null;
        return long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long microseconds) && microseconds >= 1000
            ? microseconds / 1000
            : null;
    }
}
