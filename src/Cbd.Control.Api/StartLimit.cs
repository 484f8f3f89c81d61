namespace Cbd.Control.Api;

/// <summary>A request that starts something: it ends in time, and a stop cancels it.</summary>
internal interface IStartRequest
{
    /// <summary>Longest time, seconds; null: the usual one.</summary>
    int? TimeoutSeconds { get; }

    /// <summary>What ends it early; null: nothing.</summary>
    StartLimit? Limit { get; }
}

/// <summary>A start goes on until its time is over, or somebody cancels it. Thread-safe.</summary>
/// <param name="timeoutMs">Longest time; null: any.</param>
/// <param name="isGiven">Who asks has chosen that time.</param>
internal sealed class StartLimit(int? timeoutMs = null, bool isGiven = false)
{
    private readonly Lock _lock = new();
    private readonly long _beganMs = Environment.TickCount64;
    private volatile string? _waits;
    private CbdException? _why;
    private bool _isDone;

    /// <summary>Who asks has chosen the time: what is waited for has all of it.</summary>
    public bool IsGiven => isGiven;

    /// <summary>What is left of the time, milliseconds; a value that no clock reaches if there is no limit.</summary>
    public int LeftMs => timeoutMs is { } most ? (int)Math.Clamp(_beganMs + most - Environment.TickCount64, 0, int.MaxValue) : int.MaxValue;

    /// <summary>What it waits for now, in words; null before it waits for anything.</summary>
    public string? Waits
    {
        get => _waits;
        set => _waits = value;
    }

    public bool IsCancelled
    {
        get
        {
            lock (_lock)
                return _why is not null;
        }
    }

    /// <summary>It gives up at its next step. False if it is done already.</summary>
    public bool TryCancel(CbdException why)
    {
        lock (_lock)
        {
            if (_isDone)
                return false;
            _why ??= why;
            return true;
        }
    }

    /// <summary>It is done, and cannot be cancelled any more. False if it was cancelled: it is to be taken back.</summary>
    public bool TryFinish()
    {
        lock (_lock)
            return _why is null && (_isDone = true);
    }

    /// <summary>A point at which only a stop of the thing itself ends it: neither its time nor the end of the daemon does.</summary>
    /// <param name="waits">What it waits for.</param>
    public void CheckStopped(string waits)
    {
        lock (_lock)
        {
            if (_why is { MayPass: false, Kind: not CbdErrorKind.TimedOut })
                Check(waits);
        }

        _waits = waits;
    }

    /// <summary>A point at which it may give up. Throws if it is to.</summary>
    /// <param name="waits">What it waits for; null: as before.</param>
    public void Check(string? waits = null)
    {
        if (waits is not null)
            _waits = waits;
        lock (_lock)
        {
            if (_why is { } why)
                throw new CbdException(why.Kind, why.Message) { MayPass = why.MayPass };
        }
    }
}
