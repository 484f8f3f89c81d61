using System.Diagnostics;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>A socket of datagrams that one user reaches, and that takes descriptors of one process alone.</summary>
public sealed class PrivateDatagramsTests : IDisposable
{
    private const string Python = "/usr/bin/python3";

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void It_has_no_name_in_the_tree_and_is_reached_all_the_same()
    {
        // Longer than an address.
        string deep = Path.Combine(_directory.PathOf("."), new string('d', 100), new string('e', 100));
        Directory.CreateDirectory(deep);
        using var receiver = DatagramSocket.Bind(deep, out string name);
        Assert.Empty(Directory.GetFileSystemEntries(deep));
        using DatagramSocket sender = DatagramSocket.TryConnect(name, out _)!;
        Assert.Equal(0, sender.TrySend("x"u8, null, 0));
        Assert.True(receiver.TryReceiveFrom(Environment.ProcessId, new byte[10], out ReceivedDatagram datagram));
        Assert.Equal((1, Environment.ProcessId), (datagram.Length, datagram.ProcessId));
    }

    [Fact]
    public void Descriptors_of_others_do_not_get_in_and_their_order_is_kept()
    {
        Assert.SkipUnless(File.Exists(Python), "python3 is not installed");
        using var receiver = DatagramSocket.Bind(_directory.PathOf("."), out string name);
        using DatagramSocket sender = DatagramSocket.TryConnect(name, out _)!;
        (FileDescriptor reader, FileDescriptor writer) = PipeEnds.Create();
        using (reader)
        using (writer)
        {
            Assert.Equal(0, sender.TrySend("first"u8, writer, 0));
            int other = SendFromAnotherProcess(name);
            Assert.Equal(0, sender.TrySend("third"u8, writer, 0));
            var buffer = new byte[100];

            Assert.True(receiver.TryReceiveFrom(Environment.ProcessId, buffer, out ReceivedDatagram datagram));
            Assert.Equal("first", System.Text.Encoding.ASCII.GetString(buffer, 0, datagram.Length));
            Assert.Single(datagram.Descriptors).Dispose();

            Assert.True(receiver.TryReceiveFrom(Environment.ProcessId, buffer, out datagram));
            Assert.Equal(other, datagram.ProcessId);
            Assert.Empty(datagram.Descriptors);
            Assert.DoesNotContain(Directory.GetFileSystemEntries("/proc/self/fd"), entry => new FileInfo(entry).LinkTarget?.Contains("/sent", StringComparison.Ordinal) == true);

            // Nobody is the sender.
            Assert.True(receiver.TryReceiveFrom(0, buffer, out datagram));
            Assert.Empty(datagram.Descriptors);
            Assert.False(receiver.TryReceiveFrom(Environment.ProcessId, buffer, out _));
        }
    }

    private int SendFromAnotherProcess(string name)
    {
        using var process = Process.Start(Python, ["-c", $"""
            import socket
            manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            manager.connect("{name}")
            files = [open("{_directory.PathOf("sent")}", "w") for i in range(20)]
            socket.send_fds(manager, [b"FDSTORE=1"], [file.fileno() for file in files])
            """]);
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return process.Id;
    }
}
