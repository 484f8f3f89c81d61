using Cbd.Memory;

namespace Cbd.Host;

/// <summary>How the threads of a backend or a device wait for work.</summary>
internal enum PollMode
{
    /// <summary>Look on for a while after the last event, then sleep until woken: fast while busy, free when idle.</summary>
    Adaptive,

    /// <summary>Never sleep: the shortest latency, for one CPU per thread that nobody else needs.</summary>
    Busy,

    /// <summary>Sleep as soon as nothing is there: the least CPU time, one wake-up per message.</summary>
    Sleep,
}

/// <summary>The words for <see cref="PollMode"/> on command lines and in JSON.</summary>
internal static class PollModeText
{
    public const string Adaptive = "adaptive";
    public const string Busy = "busy";
    public const string Sleep = "sleep";

    public static string Of(PollMode mode) => mode switch
    {
        PollMode.Busy => Busy,
        PollMode.Sleep => Sleep,
        _ => Adaptive,
    };

    /// <summary>Null for the default.</summary>
    public static string? OfOther(PollMode mode) => mode == PollMode.Adaptive ? null : Of(mode);

    /// <exception cref="CbdException">It is none of the words.</exception>
    public static PollMode Parse(string word) => word switch
    {
        Adaptive => PollMode.Adaptive,
        Busy => PollMode.Busy,
        Sleep => PollMode.Sleep,
        _ => throw new CbdException(CbdErrorKind.Invalid, $"mode is '{word}': use {Adaptive}, {Busy} or {Sleep}"),
    };
}
