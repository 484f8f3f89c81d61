namespace Cbd.Exports.Nbd;

/// <summary>
/// Whether a client moves fast enough what it holds while others wait for it: it has a minute for all of it. Time comes as looks, one
/// a second.
/// </summary>
internal struct MinimumRate
{
    /// <summary>Looks after which it is judged what was moved between them, unless told otherwise.</summary>
    internal const int Looks = 10;

    /// <summary>How long a client may take for what it holds.</summary>
    internal const int SecondsForAll = 60;

    /// <summary>Least that has to be moved between two judgements, however little is held.</summary>
    internal const int LeastBytes = 1024;

    private int _looks;
    private long _movedAtStart;

    /// <summary>What has to be moved between two judgements.</summary>
    internal static long BytesWanted(long heldBytes, int looks = Looks) => Math.Max(heldBytes * looks / SecondsForAll, LeastBytes);

    /// <summary>
    /// One look at a client that holds something which others wait for, and that has to send or to read before it can be given
    /// back. True if it is too slow.
    /// </summary>
    /// <param name="heldBytes">Shared memory that it holds.</param>
    /// <param name="movedBytes">All that it has sent and read so far.</param>
    /// <param name="looks">Looks after which it is judged.</param>
    internal bool IsTooSlow(long heldBytes, long movedBytes, int looks = Looks)
    {
        if (_looks == 0)
            _movedAtStart = movedBytes;
        _looks = Math.Min(_looks + 1, looks + 1);
        if (_looks <= looks)
            return false;
        if (movedBytes - _movedAtStart < BytesWanted(heldBytes, looks))
            return true;
        _looks = 0;
        return false;
    }

    /// <summary>It holds nothing.</summary>
    internal void Reset() => _looks = 0;
}

/// <summary>Who waited since the last look. Others than a client did, or nobody but itself.</summary>
internal struct Shortage
{
    private NbdConnection? _first;
    private bool _several;

    internal void Note(NbdConnection connection)
    {
        _several |= _first is not null && _first != connection;
        _first = connection;
    }

    /// <summary>Somebody else than <paramref name="connection"/> waited.</summary>
    internal readonly bool IsOfOthersThan(NbdConnection connection) => _several || (_first is not null && _first != connection);
}
