using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.KernelNbd;

/// <summary>What the kernel's NBD client is told of a new device.</summary>
/// <param name="SizeBytes">Size, bytes.</param>
/// <param name="BlockBytes">Logical block, bytes: 512 to a page.</param>
/// <param name="ServerFlags">The protocol's transmission flags.</param>
/// <param name="RequestSeconds">
/// How long a request may take. With one connection 0 is without limit. With several the kernel sends what takes longer
/// again over another one, and 0 is its 30 s.
/// </param>
/// <param name="DeadConnectionSeconds">How long requests wait for new connections when all are gone.</param>
/// <param name="Backend">Text that the kernel shows in /sys/block/nbdN/backend, and asks for with every change.</param>
internal sealed record NbdKernelDevice(
    long SizeBytes, int BlockBytes, ushort ServerFlags, int RequestSeconds, int DeadConnectionSeconds, string Backend);

/// <summary>
/// The kernel's NBD client over generic netlink. One thread at a time. Calls return 0 or a negative errno; the kernel's
/// words for it, if it has any, are in <see cref="LastText"/>.
/// </summary>
internal sealed class NbdNetlink : IDisposable
{
    private const int AnswerBytes = 16 << 10;

    private readonly NetlinkSocket _socket;
    private readonly byte[] _answer = new byte[AnswerBytes];
    private ushort _family;
    private uint _sequence;

    private NbdNetlink(NetlinkSocket socket) => _socket = socket;

    /// <summary>What the kernel said of the last error; often empty.</summary>
    internal string LastText { get; private set; } = "";

    /// <summary>Null and a negative errno if this kernel has no NBD client for this process (ENOENT), or no netlink.</summary>
    internal static NbdNetlink? TryOpen(out int error)
    {
        NbdNetlink netlink;
        try
        {
            netlink = new NbdNetlink(NetlinkSocket.Open());
        }
        catch (SystemCallException failure)
        {
            error = -failure.Errno;
            return null;
        }

        error = netlink.FindFamily();
        if (error == 0)
            return netlink;
        netlink.Dispose();
        return null;
    }

    /// <summary>
    /// Makes a device of a free number. The sockets, one per connection, are past their handshake; the kernel keeps
    /// them when they are closed here.
    /// </summary>
    internal int Connect(NbdKernelDevice device, IReadOnlyList<FileDescriptor> sockets, out int number)
    {
        NetlinkMessage request = Begin(NbdNetlinkProtocol.CommandConnect)
            .Add64(NbdNetlinkProtocol.AttributeSizeBytes, (ulong)device.SizeBytes)
            .Add64(NbdNetlinkProtocol.AttributeBlockBytes, (ulong)device.BlockBytes)
            .Add64(NbdNetlinkProtocol.AttributeTimeout, (ulong)device.RequestSeconds)
            .Add64(NbdNetlinkProtocol.AttributeDeadConnectionTimeout, (ulong)device.DeadConnectionSeconds)
            .Add64(NbdNetlinkProtocol.AttributeServerFlags, device.ServerFlags)
            .AddText(NbdNetlinkProtocol.AttributeBackend, device.Backend);
        NetlinkAnswer answer = Ask(AddSockets(request, sockets));
        number = (int)(answer.Get32(NbdNetlinkProtocol.AttributeIndex) ?? 0);
        if (answer.Errno == 0 && answer.Get32(NbdNetlinkProtocol.AttributeIndex) is null)
            return -Errno.EBADMSG;
        return -answer.Errno;
    }

    /// <summary>Puts new sockets in the place of dead ones. ENOSPC if none is dead.</summary>
    internal int Reconnect(int number, string backend, IReadOnlyList<FileDescriptor> sockets) =>
        -Ask(AddSockets(Change(number, backend), sockets)).Errno;

    /// <summary>Gives the device another size.</summary>
    internal int Resize(int number, string backend, long sizeBytes) =>
        -Ask(Change(number, backend).Add64(NbdNetlinkProtocol.AttributeSizeBytes, (ulong)sizeBytes)).Errno;

    /// <summary>Ends the device: what is in flight fails.</summary>
    internal int Disconnect(int number) =>
        -Ask(Begin(NbdNetlinkProtocol.CommandDisconnect).Add32(NbdNetlinkProtocol.AttributeIndex, (uint)number)).Errno;

    public void Dispose() => _socket.Dispose();

    private static NetlinkMessage AddSockets(NetlinkMessage message, IReadOnlyList<FileDescriptor> sockets) =>
        message.AddNested(NbdNetlinkProtocol.AttributeSockets, list =>
        {
            foreach (FileDescriptor socket in sockets)
                list.AddNested(NbdNetlinkProtocol.SocketItem, item => item.Add32(NbdNetlinkProtocol.SocketDescriptor, (uint)socket.Number));
        });

    private NetlinkMessage Begin(byte command) => new(_family, command, NbdNetlinkProtocol.Version, ++_sequence);

    private NetlinkMessage Change(int number, string backend) =>
        Begin(NbdNetlinkProtocol.CommandReconfigure)
            .Add32(NbdNetlinkProtocol.AttributeIndex, (uint)number)
            .AddText(NbdNetlinkProtocol.AttributeBackend, backend);

    private int FindFamily()
    {
        var request = new NetlinkMessage(
            NbdNetlinkProtocol.ControlFamily, NbdNetlinkProtocol.ControlGetFamily, NbdNetlinkProtocol.ControlVersion, ++_sequence);
        NetlinkAnswer answer = Ask(request.AddText(NbdNetlinkProtocol.ControlFamilyName, NbdNetlinkProtocol.FamilyName));
        _family = answer.Get16(NbdNetlinkProtocol.ControlFamilyId) ?? 0;
        return answer.Errno == 0 && _family == 0 ? -Errno.EBADMSG : -answer.Errno;
    }

    private NetlinkAnswer Ask(NetlinkMessage request)
    {
        _socket.Send(request.ToArray());
        var answer = new NetlinkAnswer();
        // The kernel answers while it is asked, so all of it is there already.
        while (!answer.IsComplete && _socket.Receive(_answer) is > 0 and var count)
            answer.Take(_answer.AsSpan(0, count), _sequence);
        if (!answer.IsComplete)
            throw new CbdException(CbdErrorKind.Failed, "the kernel did not answer over netlink; see dmesg");
        LastText = answer.Text;
        return answer;
    }
}
