using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Cbd.Control.Api.Client;

/// <summary>
/// One HTTP/1.1 request and its answer over a Unix socket (RFC 9112, the little of it that a command line needs: it
/// must start, ask and end in milliseconds). One exchange per connection. Thread-safe: no shared state.
/// </summary>
internal static class HttpExchange
{
    /// <summary>Longest answer taken, bytes; a list of every entry of a region stays far below.</summary>
    private const int MaxAnswerBytes = 256 << 20;
    private const int ErrnoAccess = 13;

    /// <summary>
    /// A daemon that says nothing for so long is asked whether it still answers. A verb may take longer; a daemon that is stopped, or
    /// hangs, answers neither.
    /// </summary>
    internal const int DefaultPatienceMs = 15_000;

    /// <summary>Sends one request with a JSON body, or none; returns the status and the body of the answer.</summary>
    /// <param name="socketPath">Where the daemon is.</param>
    /// <param name="method">What HTTP calls the method.</param>
    /// <param name="target">What HTTP calls the target.</param>
    /// <param name="body">The JSON; null for none.</param>
    /// <param name="silenceMs">How long the daemon may say nothing before it is asked.</param>
    /// <param name="patienceMs">How long it may take to accept a connection, to answer when it is asked, and to go on with an answer.</param>
    public static (int Status, byte[] Body) Send(
        string socketPath, string method, string target, byte[]? body, int silenceMs = DefaultPatienceMs, int patienceMs = DefaultPatienceMs)
    {
        using var socket = Connect(socketPath, patienceMs);
        try
        {
            var head = new StringBuilder(256)
                .Append(method).Append(' ').Append(target).Append(" HTTP/1.1\r\nHost: cbdd\r\nConnection: close\r\n");
            if (body is not null)
                head.Append("Content-Type: application/json\r\nContent-Length: ").Append(body.Length).Append("\r\n");
            head.Append("\r\n");
            byte[] request = [.. Encoding.ASCII.GetBytes(head.ToString()), .. body ?? []];
            for (var sent = 0; sent < request.Length;)
                sent += socket.Send(request.AsSpan(sent));
            for (var isEnding = false; !socket.Poll(TimeSpan.FromMilliseconds(silenceMs), SelectMode.SelectRead);)
            {
                if (isEnding)
                    throw NoAnswer(socketPath, patienceMs);
                isEnding = !TryProbe(socketPath, patienceMs);
            }

            var answer = ReceiveAll(socket);
            return answer.Length > 0 ? Parse(answer) : throw WentAway(socketPath, $"{method} {target}", "it closed the connection without an answer");
        }
        catch (SocketException e) when (IsTimeout(e))
        {
            throw NoAnswer(socketPath, patienceMs, e);
        }
        catch (SocketException e)
        {
            throw WentAway(socketPath, $"{method} {target}", e.Message, e);
        }
    }

    private static CbdException WentAway(string socketPath, string request, string how, Exception? inner = null) => new(CbdErrorKind.Failed,
        $"the daemon on '{socketPath}' went away during {request}: {how}; see its log, and look with the list verbs what was done", inner!);

    /// <summary>
    /// Asks for nothing in particular, which a daemon answers whatever its verbs wait for. False if it takes no requests any more: one that
    /// ends still answers those that it has. Throws TimedOut if it does not answer.
    /// </summary>
    private static bool TryProbe(string socketPath, int patienceMs)
    {
        try
        {
            using var socket = Connect(socketPath, patienceMs);
            socket.Send("GET / HTTP/1.1\r\nHost: cbdd\r\nConnection: close\r\n\r\n"u8);
            return socket.Poll(TimeSpan.FromMilliseconds(patienceMs), SelectMode.SelectRead) ? true : throw NoAnswer(socketPath, patienceMs);
        }
        catch (NoDaemonException)
        {
            return false;
        }
    }

    private static bool IsTimeout(SocketException e) => e.SocketErrorCode is SocketError.TimedOut or SocketError.WouldBlock;

    private static CbdException NoAnswer(string socketPath, int patienceMs, Exception? inner = null) => new(CbdErrorKind.TimedOut,
        $"the daemon on '{socketPath}' is there and does not answer within {2 * patienceMs / 1000.0:0.#} s: see whether its process is stopped (ps -o stat), and look with the list verbs what was done", inner!);

    /// <summary>Takes an answer apart: status, headers, and a body that is chunked, of a given length, or to the end.</summary>
    public static (int Status, byte[] Body) Parse(ReadOnlySpan<byte> answer)
    {
        var end = answer.IndexOf("\r\n\r\n"u8);
        if (end < 0)
            throw Broken("its head has no end");
        var lines = Encoding.ASCII.GetString(answer[..end]).Split("\r\n");
        if (lines[0].Length < 12 || !lines[0].StartsWith("HTTP/1.", StringComparison.Ordinal)
            || !int.TryParse(lines[0].AsSpan(9, 3), NumberStyles.None, CultureInfo.InvariantCulture, out var status))
            throw Broken($"it starts with '{lines[0]}'");
        var body = answer[(end + 4)..];
        foreach (var line in lines.AsSpan(1))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon < 0)
                throw Broken($"it has the header '{line}'");
            var value = line.AsSpan(colon + 1).Trim();
            if (line.AsSpan(0, colon).Equals("transfer-encoding", StringComparison.OrdinalIgnoreCase))
            {
                return value.Equals("chunked", StringComparison.OrdinalIgnoreCase)
                    ? (status, Unchunk(body))
                    : throw Broken($"its transfer encoding is '{value}'");
            }

            if (line.AsSpan(0, colon).Equals("content-length", StringComparison.OrdinalIgnoreCase)
                && (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var length) || length != body.Length))
                throw Broken($"it has {body.Length} bytes and not '{value}'");
        }

        return (status, body.ToArray());
    }

    private static byte[] Unchunk(ReadOnlySpan<byte> chunks)
    {
        var body = new MemoryStream(chunks.Length);
        while (true)
        {
            var lineEnd = chunks.IndexOf("\r\n"u8);
            if (lineEnd < 0 || !int.TryParse(chunks[..lineEnd], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var size)
                || size < 0 || size > chunks.Length - lineEnd - 4)
                throw Broken("it ends in the middle");
            if (!chunks.Slice(lineEnd + 2 + size, 2).SequenceEqual("\r\n"u8))
                throw Broken("one of its chunks has no end");
            if (size == 0)
                return body.ToArray();
            body.Write(chunks.Slice(lineEnd + 2, size));
            chunks = chunks[(lineEnd + 4 + size)..];
        }
    }

    private static Socket Connect(string socketPath, int patienceMs)
    {
        UnixDomainSocketEndPoint address;
        try
        {
            address = new UnixDomainSocketEndPoint(socketPath);
        }
        catch (ArgumentException)
        {
            throw new CbdException(CbdErrorKind.Invalid, $"the path of the control socket '{socketPath}' is too long for a socket (107 bytes); use a shorter run directory");
        }

        // The kernel's connect to a Unix socket waits while its queue is full, for as long as a send may.
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { SendTimeout = patienceMs, ReceiveTimeout = patienceMs };
        try
        {
            socket.Connect(address);
            return socket;
        }
        catch (SocketException e)
        {
            socket.Dispose();
            if (IsTimeout(e))
                throw NoAnswer(socketPath, patienceMs, e);
            if (e.SocketErrorCode == SocketError.AccessDenied || e.NativeErrorCode == ErrnoAccess)
            {
                throw new CbdException(CbdErrorKind.Denied,
                    $"control client without the right: uid {EffectiveUserId()} may not use '{socketPath}'; run it as root or the user of the daemon, or start cbdd with --socket-group and a group of yours", e);
            }

            throw new NoDaemonException(socketPath, File.Exists(socketPath) ? "its socket is a leftover" : "there is no socket");
        }
    }

    /// <summary>As the kernel says it (proc_pid_status(5)); empty where there is no /proc.</summary>
    private static string EffectiveUserId()
    {
        try
        {
            return File.ReadLines("/proc/self/status").First(line => line.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[2];
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or IndexOutOfRangeException)
        {
            return "";
        }
    }

    private static byte[] ReceiveAll(Socket socket)
    {
        var answer = new byte[16 << 10];
        var length = 0;
        while (true)
        {
            var received = socket.Receive(answer.AsSpan(length));
            if (received == 0)
                return answer[..length];
            length += received;
            if (length == MaxAnswerBytes)
                throw Broken($"it is longer than {MaxAnswerBytes} bytes");
            if (length == answer.Length)
                Array.Resize(ref answer, answer.Length * 2);
        }
    }

    private static CbdException Broken(string how) =>
        new(CbdErrorKind.Corrupt, $"the daemon's answer is not HTTP that can be read: {how}");
}
