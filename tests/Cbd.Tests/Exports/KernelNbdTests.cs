using System.Buffers.Binary;
using Cbd.Exports.Kernel;
using Cbd.Exports.KernelNbd;
using Cbd.Exports;
using Cbd.Host.Attachments;
using Cbd.Memory.Sockets;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Netlink messages, and the marks of devices. The kernel's side is tested in virtual machines (tests/vm).</summary>
public sealed class KernelNbdTests
{
    private const uint Sequence = 9;

    [Fact]
    public void A_message_is_laid_out_as_the_kernel_reads_it()
    {
        byte[] message = new NetlinkMessage(0x1234, 3, 1, Sequence)
            .Add32(1, 0xaabbccdd)
            .Add64(2, 0x1122334455667788)
            .AddText(10, "cbd")
            .AddNested(7, list => list.AddNested(1, item => item.Add32(1, 5)))
            .ToArray();

        byte[] expected =
        [
            0x48, 0, 0, 0, 0x34, 0x12, 5, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3, 1, 0, 0,
            8, 0, 1, 0, 0xdd, 0xcc, 0xbb, 0xaa,
            12, 0, 2, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
            8, 0, 10, 0, (byte)'c', (byte)'b', (byte)'d', 0,
            16, 0, 7, 0x80, 12, 0, 1, 0x80, 8, 0, 1, 0, 5, 0, 0, 0,
        ];
        expected[0] = (byte)expected.Length;
        Assert.Equal(expected, message);
    }

    [Fact]
    public void Text_is_padded_and_its_length_is_not()
    {
        byte[] message = new NetlinkMessage(16, 3, 2, Sequence).AddText(2, "nlctrl").Add32(1, 1).ToArray();
        Assert.Equal(20 + 12 + 8, message.Length);
        Assert.Equal(4 + 7, message[20]);
        Assert.Equal(0, message[20 + 11]);
    }

    [Fact]
    public void An_answer_has_attributes_and_then_its_end()
    {
        var answer = new NetlinkAnswer();
        answer.Take([.. Reply(Sequence, 0x20, [4, 0, 0, 0, 8, 0, 1, 0, 3, 0, 0, 0]), .. Reply(Sequence, 2, [0, 0, 0, 0, .. new byte[16]])], Sequence);
        Assert.True(answer.IsComplete);
        Assert.Equal((0, 3u), (answer.Errno, answer.Get32(1)));
        Assert.Null(answer.Get16(1));
        Assert.Null(answer.Get32(2));
    }

    [Fact]
    public void An_error_has_its_errno_and_the_kernels_words()
    {
        byte[] words = [9, 0, 1, 0, (byte)'b', (byte)'u', (byte)'s', (byte)'y', 0, 0, 0, 0];
        byte[] error = [0xf0, 0xff, 0xff, 0xff, .. new byte[16], .. words];
        error[4] = 16;
        var answer = new NetlinkAnswer();
        answer.Take(Reply(Sequence, 2, error, 0x300), Sequence);
        Assert.Equal((true, Errno.EBUSY, "busy"), (answer.IsComplete, answer.Errno, answer.Text));
    }

    [Fact]
    public void Answers_to_other_requests_are_skipped()
    {
        var answer = new NetlinkAnswer();
        answer.Take(Reply(Sequence - 1, 2, new byte[20]), Sequence);
        Assert.False(answer.IsComplete);
    }

    [Fact]
    public void Whatever_bytes_come_are_survived()
    {
        byte[] good =
        [
            .. Reply(Sequence, 0x20, [4, 0, 0, 0, 8, 0, 1, 0, 3, 0, 0, 0]),
            .. Reply(Sequence, 2, [0xf0, 0xff, 0xff, 0xff, 16, .. new byte[15], 9, 0, 1, 0, 98, 117, 115, 121, 0, 0, 0, 0], 0x300),
        ];
        Gen.Select(Gen.Int[0, good.Length], Gen.Select(Gen.Int[0, good.Length - 1], Gen.Byte).Array[0, 8]).Sample((length, changes) =>
        {
            byte[] bytes = [.. good];
            foreach ((int place, byte value) in changes)
                bytes[place] = value;
            new NetlinkAnswer().Take(bytes.AsSpan(0, length), Sequence);
        });
        Gen.Byte.Array[0, 100].Sample(bytes => new NetlinkAnswer().Take(bytes, Sequence));
    }

    [Fact]
    public void The_kernel_of_this_machine_understands_the_messages()
    {
        using var socket = NetlinkSocket.Open();
        NetlinkAnswer found = Ask(socket, 1, "nlctrl");
        Assert.Equal((true, 0, NbdNetlinkProtocol.ControlFamily), (found.IsComplete, found.Errno, found.Get16(NbdNetlinkProtocol.ControlFamilyId)));
        NetlinkAnswer missing = Ask(socket, 2, "no-such-family");
        Assert.Equal((true, Errno.ENOENT), (missing.IsComplete, missing.Errno));
    }

    [Fact]
    public void Where_the_module_is_missing_the_reason_names_it()
    {
        Assert.SkipWhen(Directory.Exists("/sys/module/nbd"), "this machine has nbd");
        var kind = new KernelNbdAttachKind();
        Assert.False(kind.IsAvailable(out string whyNot));
        Assert.Contains("modprobe nbd", whyNot, StringComparison.Ordinal);
        Assert.Empty(kind.FindLeftovers(Assert.Fail));
    }

    [Fact]
    public void A_device_names_its_owner()
    {
        var owner = new KernelNbdOwner(123, 456789, "cbd1.0");
        Assert.Equal("cbd:123:456789:cbd1.0", owner.Encode());
        Assert.True(KernelNbdOwner.TryDecode(owner.Encode(), out KernelNbdOwner decoded));
        Assert.Equal(owner, decoded);
        Assert.All(["", "cbd", "cbd:1:2", "abc:1:2:cbd0", "cbd:-1:2:cbd0", "cbd:1:x:cbd0", "cbd: 1:2:cbd0"], text => Assert.False(KernelNbdOwner.TryDecode(text, out _)));
    }

    [Fact]
    public void A_device_that_outlives_its_daemon_names_host_and_life()
    {
        var host = new Guid("11112222-3333-4444-5555-666677778888");
        var life = new AttachmentLife { Host = host, Id = 0xa7 };
        var owner = KernelNbdOwner.Of("cbd1.0", life);
        Assert.Equal("cbd:11112222-3333-4444-5555-666677778888:00000000000000a7:cbd1.0", owner.Encode());
        Assert.True(KernelNbdOwner.TryDecode(owner.Encode(), out KernelNbdOwner decoded));
        Assert.Equal(owner, decoded);
        Assert.Equal(KernelNbdOwner.Self("cbd0"), KernelNbdOwner.Of("cbd0", null));
        var lives = new AttachmentLives(host);
        Assert.True(decoded.IsLeftover(lives));
        lives.Add(0xa7);
        Assert.False(decoded.IsLeftover(lives));
        lives.Remove(0xa7);
        Assert.True(decoded.IsLeftover(lives));
        Assert.False(decoded.IsLeftover(new AttachmentLives(Guid.NewGuid())));
        Assert.False(decoded.IsLeftover(null));
    }

    /// <summary>As the pumps of one device ask: what one connection's end means for what the others receive.</summary>
    [Fact]
    public void A_lost_connection_keeps_new_requests_waiting_until_it_is_closed()
    {
        using var lost = new LostConnections();
        (StreamSocket first, FileDescriptor kernelOfFirst) = StreamSocket.CreatePair();
        (StreamSocket second, FileDescriptor kernelOfSecond) = StreamSocket.CreatePair();
        using (second)
        using (kernelOfSecond)
        {
            using (first)
            {
                lost.Watch(first);
                lost.Watch(second);
                Assert.True(lost.IsOpen);
                Assert.False(LostConnections.IsLost(first));
                kernelOfFirst.Dispose();
                Assert.False(lost.IsOpen);
                Assert.False(lost.IsOpen);
                Assert.True(LostConnections.IsLost(first));
                Assert.False(LostConnections.IsLost(second));
            }

            Assert.True(lost.IsOpen);
        }
    }

    [Fact]
    public void A_living_daemon_is_not_gone_and_an_earlier_one_of_its_number_is()
    {
        Assert.False(KernelNbdOwner.Self("cbd0").IsGone);
        Assert.False(new KernelNbdOwner(0, 0, "cbd0").IsGone);
        Assert.SkipWhen(OwnerProcess.SelfInFirstNamespace.Id == 0, "this process id namespace is not the first");
        Assert.True((KernelNbdOwner.Self("cbd0") with { StartTicks = 1 }).IsGone);
    }

    private static NetlinkAnswer Ask(NetlinkSocket socket, uint sequence, string family)
    {
        var request = new NetlinkMessage(
            NbdNetlinkProtocol.ControlFamily, NbdNetlinkProtocol.ControlGetFamily, NbdNetlinkProtocol.ControlVersion, sequence);
        socket.Send(request.AddText(NbdNetlinkProtocol.ControlFamilyName, family).ToArray());
        var answer = new NetlinkAnswer();
        var buffer = new byte[16 << 10];
        while (!answer.IsComplete && socket.Receive(buffer) is > 0 and var count)
            answer.Take(buffer.AsSpan(0, count), sequence);
        return answer;
    }

    private static byte[] Reply(uint sequence, ushort type, byte[] body, ushort flags = 0)
    {
        byte[] message = new byte[16 + body.Length];
        BinaryPrimitives.WriteInt32LittleEndian(message, message.Length);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(4), type);
        BinaryPrimitives.WriteUInt16LittleEndian(message.AsSpan(6), flags);
        BinaryPrimitives.WriteUInt32LittleEndian(message.AsSpan(8), sequence);
        body.CopyTo(message, 16);
        return message;
    }
}
