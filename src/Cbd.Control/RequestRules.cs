using Cbd.Host.Devices;
using System.Diagnostics.CodeAnalysis;
using Cbd.Protocol.Blkdevs;
using Cbd.Disks;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Host.Attachments;

namespace Cbd.Control;

/// <summary>
/// The ranges of what a request may ask, whatever region it is for. What depends on the region or the disk (free
/// entries, sizes that fit) is the node's to check. Every refusal names the value and the range.
/// </summary>
internal static class RequestRules
{
    /// <summary>Most handlers of a backend, and most queues of a device.</summary>
    public const int MaxThreads = 128;

    /// <summary>Most entries of one kind that a region can be formatted with.</summary>
    public const int MaxEntries = 32768;

    public const int MaxRingSlots = 32768;

    /// <summary>Longest time that requests wait for a lost backend before they fail: a year.</summary>
    public const int MaxLossTimeoutSeconds = 365 * 24 * 3600;

    /// <summary>Longest path of a region, disk or socket, UTF-8 bytes (PATH_MAX without its end).</summary>
    public const int MaxPathBytes = 4095;

    public static void Check(RegisterTransportOptions options)
    {
        if (string.IsNullOrEmpty(options.Host))
            throw Invalid("the host name is empty; give this host a name with -H");
        if (options.Host.AsSpan().ContainsAnyInRange('\0', '\x1f'))
            throw Invalid($"the host name '{options.Host}' has control characters; use printable ones");
        CheckPath(options.Path, "region");
        CheckAbsolute(options.Path, "region");
        CheckRange(options.SizeBytes, "the region size", 1, long.MaxValue);
        CheckRange(options.Hosts, "the number of hosts", 1, MaxEntries);
        CheckRange(options.Backends, "the number of backends", 1, MaxEntries);
        CheckRange(options.Blkdevs, "the number of blkdevs", 1, MaxEntries);
        CheckRange(options.Channels, "the number of channels", 1, MaxEntries);
        CheckRange(options.ChannelSizeBytes, "the channel size", 1, long.MaxValue);
        CheckRange(options.RingSlots, "the number of ring slots", 1, MaxRingSlots);
        if (options.Coherence is not (null or "hardware"))
            throw Invalid($"coherence '{options.Coherence}' is not known; this version has only 'hardware'");
        if (!options.Format)
            RefuseFormatOptions(options);
    }

    public static void Check(StartBackendOptions options)
    {
        CheckId(options.Transport, "transport");
        CheckPath(options.Path, "disk");
        if (!IsDiskScheme(options.Path))
            CheckAbsolute(options.Path, "disk");
        CheckRange(options.Handlers, "the number of handlers", 1, MaxThreads);
        if (options.Backend is { } backend)
            CheckId(backend, "backend");
        if (options.Engine is not ("auto" or "io_uring" or "pread"))
            throw Invalid($"engine '{options.Engine}' is not known; use auto, io_uring or pread");
        if (options.BlockBytes is not (null or 512 or 4096))
            throw Invalid($"block size {options.BlockBytes} is not possible; use 512 or 4096");
        if (options.Faults is { } faults)
            CheckFaults(faults);
    }

    public static void CheckFaults(IReadOnlyList<string> faults)
    {
        if (faults.Count == 0)
            throw Invalid("no fault is given; give one or more, or off");
        if (faults.Contains(null!))
            throw Invalid("a fault is null; give one as error,op=read, or off");
        _ = FaultSpec.ParseAll(faults);
    }

    public static void Check(StartDeviceOptions options)
    {
        CheckId(options.Transport, "transport");
        CheckId(options.Backend, "backend");
        CheckRange(options.Queues, "the number of queues", 1, MaxThreads);
        if (options.Attach is not (null or AttachChoice.Auto or AttachChoice.None) && !AttachChoice.Order.Contains(options.Attach))
            throw Invalid($"attach '{options.Attach}' is not known; use {AttachChoice.Auto}, {string.Join(", ", AttachChoice.Order)} or {AttachChoice.None}");
        CheckRange(options.LossTimeoutSeconds, "the loss timeout in seconds", 0, MaxLossTimeoutSeconds);
        if (options.LossTimeoutSeconds > 0 && options.OnBackendLoss != OnBackendLoss.Queue)
            throw Invalid($"loss timeout {options.LossTimeoutSeconds} with requests that fail at once; it is for --on-backend-loss {LossText.Queue}: leave one of the two out");
        CheckRange(options.NbdConnections, "the number of NBD connections", 1, SocketOptions.MaxConnections);
        CheckRange(options.NbdHandshakeSeconds, "the time for NBD handshakes, seconds,", 1, SocketOptions.MaxHandshakeSeconds);
        if (options.Attach is { } kind && AttachChoice.Order.Contains(kind) && SocketOptions.AskedFor(options) is { } asked)
            throw Invalid($"{asked} with attach '{kind}': a device that is attached by {kind} has no socket; leave one of the two out, or use attach {AttachChoice.None}");
        if (options.Tls is { } tls)
            Check(tls);
        if (options.Nbd is null)
            return;
        CheckPath(options.Nbd, "NBD address");
        if (options.Nbd.StartsWith("unix:", StringComparison.Ordinal))
            CheckAbsolute(options.Nbd["unix:".Length..], "NBD socket");
        else if (!options.Nbd.StartsWith("tcp:", StringComparison.Ordinal) && !options.Nbd.StartsWith("fd:", StringComparison.Ordinal))
            throw Invalid($"NBD address '{options.Nbd}' is not known; use unix:PATH, tcp:HOST:PORT or fd:NAME");
    }

    private static void Check(TlsOptions tls)
    {
        CheckPath(tls.Certificates, "TLS certificates");
        CheckAbsolute(tls.Certificates, "TLS certificates");
        if (tls.Allow.Count != 0 && !tls.VerifyPeer)
            throw Invalid($"names of clients are allowed ({string.Join(", ", tls.Allow)}) and their certificates are not verified; add --tls-verify-peer, or leave --tls-allow out");
        if (tls.Allow.Any(string.IsNullOrEmpty))
            throw Invalid("an allowed name of a client is empty; give the common name or a DNS name of its certificate");
    }

    /// <summary>Ids are indexes of entries: 0 or above.</summary>
    public static void CheckId(int id, string what)
    {
        if (id < 0)
            throw Invalid($"{what} id {id} is negative; ids start at 0");
    }

    /// <summary>A size that a disk can have, bytes; null: none is asked for.</summary>
    public static void CheckDiskSize(long? sizeBytes) => CheckRange(sizeBytes, "the size of the disk", 1, long.MaxValue);

    /// <summary>The path is a kind of disk that is not a file.</summary>
    public static bool IsDiskScheme(string path) =>
        path.StartsWith("memory:", StringComparison.Ordinal) || path.StartsWith("null:", StringComparison.Ordinal);

    private static void RefuseFormatOptions(RegisterTransportOptions options)
    {
        var given = options.SizeBytes is not null ? "--size"
            : options.Hosts is not null ? "--hosts"
            : options.Backends is not null ? "--backends"
            : options.Blkdevs is not null ? "--blkdevs"
            : options.Channels is not null ? "--channels"
            : options.ChannelSizeBytes is not null ? "--channel-size"
            : options.RingSlots is not null ? "--ring-slots"
            : !options.PayloadCrc ? "--payload-crc"
            : null;
        if (given is not null)
            throw Invalid($"{given} is chosen when a region is formatted; add --format, or leave it out");
    }

    private static void CheckPath([NotNull] string? path, string what)
    {
        if (string.IsNullOrEmpty(path))
            throw Invalid($"the {what} path is empty; give one from /");
        if (path.Contains('\0', StringComparison.Ordinal))
            throw Invalid($"the {what} path '{path}' has a NUL in it");
        var bytes = System.Text.Encoding.UTF8.GetByteCount(path);
        if (bytes > MaxPathBytes)
            throw Invalid($"the {what} path has {bytes} bytes; at most {MaxPathBytes} are possible");
    }

    private static void CheckAbsolute(string path, string what)
    {
        if (!System.IO.Path.IsPathRooted(path))
            throw Invalid($"the {what} path '{path}' is relative, and a daemon has no place it is relative to; give it from /");
    }

    private static void CheckRange(long? value, string what, long least, long most)
    {
        if (value is { } number && (number < least || number > most))
        {
            throw Invalid(most == long.MaxValue
                ? $"{what} is {number}; it must be at least {least}"
                : $"{what} is {number}; it must be {least} to {most}");
        }
    }

    private static CbdException Invalid(string message) => new(CbdErrorKind.Invalid, message);
}
