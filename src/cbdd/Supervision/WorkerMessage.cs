using System.Text;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// One datagram of a worker: lines of names and values (sd_notify(3)). Names that are not known mean nothing, so that service managers do not mind the two of this
/// project's own, which begin with X_CBD_.
/// </summary>
internal sealed record WorkerMessage
{
    /// <summary>The line of <see cref="HasHandlers"/>.</summary>
    public const string Handlers = "X_CBD_SIGNALS=1";

    /// <summary>The line of <see cref="IsStarted"/>.</summary>
    public const string Started = "X_CBD_STARTED=1";

    /// <summary>Longest datagram.</summary>
    public const int MostBytes = 8192;

    /// <summary>Descriptors come with it that are to be kept.</summary>
    public bool Stores { get; init; }

    /// <summary>What is kept under <see cref="Name"/> is to be closed.</summary>
    public bool Removes { get; init; }

    /// <summary>The worker waits until the one descriptor that comes with it is closed.</summary>
    public bool IsBarrier { get; init; }

    /// <summary>Of a descriptor.</summary>
    public string Name { get; init; } = "";

    /// <summary>It handles signals from now on.</summary>
    public bool HasHandlers { get; init; }

    /// <summary>It answers; lines of its command line may wait for something.</summary>
    public bool IsReady { get; init; }

    /// <summary>All that its command line asks for is done.</summary>
    public bool IsStarted { get; init; }

    /// <summary>The worker lives (WATCHDOG=1).</summary>
    public bool IsAlive { get; init; }

    /// <summary>What it does, in one line; null if it does not say.</summary>
    public string? Status { get; init; }

    public static WorkerMessage Parse(ReadOnlySpan<byte> datagram)
    {
        var message = new WorkerMessage();
        foreach (var line in Encoding.UTF8.GetString(datagram).Split('\n'))
        {
            message = line switch
            {
                "FDSTORE=1" => message with { Stores = true },
                "FDSTOREREMOVE=1" => message with { Removes = true },
                "BARRIER=1" => message with { IsBarrier = true },
                Handlers => message with { HasHandlers = true },
                Started => message with { IsStarted = true },
                "READY=1" => message with { IsReady = true },
                "WATCHDOG=1" => message with { IsAlive = true },
                _ when line.StartsWith("FDNAME=", StringComparison.Ordinal) => message with { Name = line["FDNAME=".Length..] },
                _ when line.StartsWith("STATUS=", StringComparison.Ordinal) => message with { Status = line["STATUS=".Length..] },
                _ => message,
            };
        }

        return message;
    }
}
