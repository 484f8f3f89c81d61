using System.Net.Sockets;
using System.Text;
using Cbd.Control.Server;
using Cbd.Tests.Control;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Cbd.Fuzz;

/// <summary>
/// The control API on its socket. The input is a line "METHOD PATH" and a body; without a line break it is sent as it is.
/// Every request is answered or the connection ended, and no answer says that it is a bug.
/// </summary>
internal sealed class ControlTarget : IFuzzTarget
{
    private const int PatienceMs = 10_000;
    private readonly string _path = Path.Combine(Directory.CreateTempSubdirectory("cbd-fuzz-").FullName, "cbdd.sock");
    private readonly byte[] _answer = new byte[256 << 10];
    private ControlServer? _server;
    private int _runs;

    public void Run(ReadOnlySpan<byte> input)
    {
        // The node keeps what was asked of it.
        if (_runs++ % 2000 == 0)
            Restart();
        int end = input.IndexOf((byte)'\n');
        byte[] message = end < 0 ? input.ToArray() :
            [
                .. input[..end], .. " HTTP/1.1\r\nHost: cbdd\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: "u8,
                .. Encoding.ASCII.GetBytes($"{input.Length - end - 1}"), .. "\r\n\r\n"u8, .. input[(end + 1)..],
            ];
        string answer = Exchange(message);
        FuzzTargets.Check(!answer.Contains("this is a bug", StringComparison.Ordinal), answer);
    }

    private void Restart()
    {
        _server?.DisposeAsync().AsTask().Wait();
        var node = new ListedNode();
        _server = ControlServer.StartAsync(new CheckedControl(node), _path, new PeerAccess(0), new NoLogs()).GetAwaiter().GetResult();
    }

    private string Exchange(byte[] message)
    {
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = PatienceMs, SendTimeout = PatienceMs };
        client.Connect(new UnixDomainSocketEndPoint(_path));
        int length = 0;
        try
        {
            client.Send(message);
            client.Shutdown(SocketShutdown.Send);
            while (length < _answer.Length && client.Receive(_answer.AsSpan(length)) is var received and > 0)
                length += received;
        }
        catch (SocketException e)
        {
            FuzzTargets.Check(e.SocketErrorCode is not (SocketError.TimedOut or SocketError.WouldBlock), "the server answers, or ends the connection");
        }

        return Encoding.UTF8.GetString(_answer, 0, length);
    }

    private sealed class NoLogs : ILoggerProvider
    {
        public ILogger CreateLogger(string categoryName) => NullLogger.Instance;

        public void Dispose()
        {
        }
    }
}
