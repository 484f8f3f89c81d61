using Cbd.Host.Threads;
using System.Collections.Immutable;
using System.Globalization;
using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Host;

/// <summary>
/// Files with all flight recorders of this process, written when somebody asks, when a channel, device or transport fails,
/// and when the process is about to end by a bug. The last few are kept. Thread-safe.
/// </summary>
internal sealed class FlightFiles : IDisposable
{
    /// <summary>Files kept; the oldest goes first.</summary>
    public const int MaxFiles = 16;

    private const string Prefix = "flight-";

    /// <summary>Failures that follow each other closely are one event with one cause, which the first file shows.</summary>
    private const int FailureGapMs = 10_000;

    /// <summary>A crash must not wait for locks that its own cause may hold.</summary>
    private const int CrashPatienceMs = 3_000;

    /// <summary>All of this process; replaced as a whole.</summary>
    private static ImmutableList<FlightFiles> s_all = [];

    private readonly INode _node;
    private readonly string _directory;
    private readonly ILogger _logger;
    private readonly Lock _lock = new();
    private readonly int _failureGapMs;
    private long _lastFailureMs;

    static FlightFiles() => AppDomain.CurrentDomain.UnhandledException += static (_, e) => OnCrash($"unhandled exception: {e.ExceptionObject}");

    /// <summary>From now on, failures of this process are written, too.</summary>
    /// <param name="node">Whose recorders.</param>
    /// <param name="directory">Where the files go; it exists.</param>
    /// <param name="logger">Says where they are.</param>
    /// <param name="failureGapMs">Failures within it are one event.</param>
    public FlightFiles(INode node, string directory, ILogger logger, int failureGapMs = FailureGapMs)
    {
        _failureGapMs = failureGapMs;
        _lastFailureMs = -failureGapMs;
        _node = node;
        _directory = directory;
        _logger = logger;
        ImmutableInterlocked.Update(ref s_all, static (all, added) => all.Add(added), this);
    }

    /// <summary>Writes a file; returns its path.</summary>
    /// <exception cref="CbdException">It could not be written.</exception>
    public string Write(string reason)
    {
        lock (_lock)
        {
            DateTime now = DateTime.UtcNow;
            string name = string.Create(CultureInfo.InvariantCulture, $"{Prefix}{now:yyyyMMdd'T'HHmmss.ffffff'Z'}-{Environment.ProcessId}.txt");
            string path = Path.Combine(_directory, name);
            try
            {
                RemoveOldest();
                // Not durable: a disk that hangs may be the reason, and processes that look find all of it or nothing.
                AtomicFile.Write(path, isDurable: false, stream =>
                {
                    using var file = new StreamWriter(stream, bufferSize: 64 << 10, leaveOpen: true);
                    Write(file, now, reason);
                });
            }
            catch (Exception e) when (e is CbdException or IOException or UnauthorizedAccessException)
            {
                throw new CbdException(CbdErrorKind.Failed, $"the flight recorders cannot be written to '{path}': {e.Message}", e);
            }

            _logger.LogWarning("flight recorders written to {Path}: {Reason}", path, reason);
            return path;
        }
    }

    /// <summary>No failure of this process is written any more.</summary>
    public void Dispose() => ImmutableInterlocked.Update(ref s_all, static (all, removed) => all.Remove(removed), this);

    /// <summary>Something failed for good: writes a file, soon and on another thread, unless one was written just now.</summary>
    internal static void OnFailure(string reason)
    {
        long now = MonotonicClock.Milliseconds;
        foreach (FlightFiles files in Volatile.Read(ref s_all))
        {
            long last = Volatile.Read(ref files._lastFailureMs);
            if (now - last >= files._failureGapMs && Interlocked.CompareExchange(ref files._lastFailureMs, now, last) == last)
                PoolWork.Queue(() => files.TryWrite(reason));
        }
    }

    /// <summary>The process is about to end by a bug of our own: writes a file if that can be done in a few seconds.</summary>
    /// <param name="reason">What the bug is.</param>
    /// <param name="patienceMs">How long it may take.</param>
    internal static void OnCrash(string reason, int patienceMs = CrashPatienceMs)
    {
        foreach (FlightFiles files in Volatile.Read(ref s_all))
        {
            var writer = new Thread(() => files.TryWrite(reason)) { IsBackground = true };
            if (NeededThread.TryBegin(writer))
                writer.Join(patienceMs);
        }
    }

    private void Write(StreamWriter file, DateTime now, string reason)
    {
        file.Write($"{now:yyyy-MM-dd'T'HH:mm:ss.fff'Z'} process {Environment.ProcessId}: {reason.ReplaceLineEndings(" ")}\n");
        foreach (TransportDescription transport in _node.ListTransports())
        {
            file.Write($"transport {transport.TransportId}: {transport.Path}, host {transport.HostId} ('{transport.HostName}'){(transport.Failure.Length > 0 ? $", failed: {transport.Failure}" : "")}\n");
            FlightText.Write(file, _node.ReadFlights(transport.TransportId, new FlightFilter()));
        }
    }

    /// <summary>Never throws: it runs where a process ends by a bug, and on threads that have nobody to catch.</summary>
    private void TryWrite(string reason)
    {
        try
        {
            Write(reason);
        }
        catch (CbdException e)
        {
            _logger.LogError("{Error}", e.Message);
        }
        catch (Exception e)
        {
            // The node may be in any state; what led here must not be covered by what follows from it.
            _logger.LogError(e, "the flight recorders cannot be read");
        }
    }

    private void RemoveOldest()
    {
        // Of processes that died while they wrote.
        foreach (string left in Directory.GetFiles(_directory, Prefix + "*.txt" + AtomicFile.TemporarySuffix))
            File.Delete(left);
        string[] files = Directory.GetFiles(_directory, Prefix + "*.txt");
        Array.Sort(files, StringComparer.Ordinal);
        foreach (string file in files.AsSpan(0, Math.Max(0, files.Length - MaxFiles + 1)))
            File.Delete(file);
    }
}
