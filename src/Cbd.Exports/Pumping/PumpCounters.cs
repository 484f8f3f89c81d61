namespace Cbd.Exports.Pumping;

/// <summary>What a pump did since it started. Bytes are payload of requests that succeeded.</summary>
/// <param name="AllocatedBytes">Managed memory that the pump's thread allocated since it began to serve.</param>
internal readonly record struct PumpStatistics(
    long Requests, long FailedRequests, long BytesRead, long BytesWritten, long AllocatedBytes)
{
    /// <summary>For the log, when a queue has ended.</summary>
    internal string Describe(int queue) =>
        $"queue {queue} served {Requests} requests, {FailedRequests} of them failed; read {BytesRead}, wrote {BytesWritten} bytes, allocated {AllocatedBytes}";
}

/// <summary>Counts what a pump does. Its thread counts; any thread may read, numbers of slightly different moments.</summary>
internal struct PumpCounters
{
    private long _requests;
    private long _failedRequests;
    private long _bytesRead;
    private long _bytesWritten;
    private long _allocatedBytes;
    private long _allocatedAtStart;

    internal readonly PumpStatistics Statistics => new(
        Volatile.Read(in _requests), Volatile.Read(in _failedRequests), Volatile.Read(in _bytesRead),
        Volatile.Read(in _bytesWritten), Volatile.Read(in _allocatedBytes));

    /// <summary>The pump's thread begins to serve.</summary>
    internal void Begin() => _allocatedAtStart = GC.GetAllocatedBytesForCurrentThread();

    /// <summary>The pump's thread has had a turn.</summary>
    internal void EndTurn() => Volatile.Write(ref _allocatedBytes, GC.GetAllocatedBytesForCurrentThread() - _allocatedAtStart);

    internal void AddRequest() => Volatile.Write(ref _requests, _requests + 1);

    internal void AddFailed() => Volatile.Write(ref _failedRequests, _failedRequests + 1);

    internal void AddRead(long bytes) => Volatile.Write(ref _bytesRead, _bytesRead + bytes);

    internal void AddWritten(long bytes) => Volatile.Write(ref _bytesWritten, _bytesWritten + bytes);
}
