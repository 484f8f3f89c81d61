using Cbd.Programs.Daemon.State;
using Microsoft.Extensions.Logging;

namespace Cbd.Tests.Control;

/// <summary>Parts of a daemon that wait longer than any thread is kept from running.</summary>
internal static class PatientDaemon
{
    /// <summary>How long they wait, seconds.</summary>
    public const int LongSeconds = 600;

    private const int LongMs = 1000 * LongSeconds;

    public static RecordingControl Control(IControl node, StateRecord record, bool isRun = false) => new(node, record, isRun)
    {
        StartTimeoutSeconds = LongSeconds,
        GiveUpGraceMs = LongMs,
        CancelGraceMs = LongMs,
        CancelWaitMs = LongMs,
        ConfirmWaitMs = LongMs,
    };

    public static Reconciler Reconciler(IControl node, StateRecord record, ILogger logger) => new(node, record, logger) { PatienceMs = LongMs, PassMs = LongMs };
}
