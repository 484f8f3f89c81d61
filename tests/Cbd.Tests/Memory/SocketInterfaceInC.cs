namespace Cbd.Tests.Memory;

/// <summary>What the constants and structures of sockets are called in the headers of Linux and its C library.</summary>
internal static class SocketInterfaceInC
{
    internal static readonly Dictionary<string, string> Constants = new()
    {
        ["KernelConstants.FamilyUnix"] = "AF_UNIX",
        ["KernelConstants.FamilyInet"] = "AF_INET",
        ["KernelConstants.FamilyInet6"] = "AF_INET6",
        ["KernelConstants.FamilyNetlink"] = "AF_NETLINK",
        ["KernelConstants.NetlinkGeneric"] = "NETLINK_GENERIC",
        ["KernelConstants.LevelNetlink"] = "SOL_NETLINK",
        ["KernelConstants.NetlinkShortAcknowledge"] = "NETLINK_CAP_ACK",
        ["KernelConstants.NetlinkExtendedAcknowledge"] = "NETLINK_EXT_ACK",
        ["KernelConstants.SocketRaw"] = "SOCK_RAW",
        ["KernelConstants.SocketStream"] = "SOCK_STREAM",
        ["KernelConstants.SocketDatagram"] = "SOCK_DGRAM",
        ["KernelConstants.PassCredentials"] = "SO_PASSCRED",
        ["KernelConstants.ControlRights"] = "SCM_RIGHTS",
        ["KernelConstants.ControlCredentials"] = "SCM_CREDENTIALS",
        ["KernelConstants.IoctlSocketFile"] = "SIOCUNIXFILE",
        ["KernelConstants.MessagePeek"] = "MSG_PEEK",
        ["KernelConstants.MessageControlTruncated"] = "MSG_CTRUNC",
        ["KernelConstants.MessageTruncated"] = "MSG_TRUNC",
        ["KernelConstants.MessageCloseOnExec"] = "MSG_CMSG_CLOEXEC",
        ["KernelConstants.SocketNonBlocking"] = "SOCK_NONBLOCK",
        ["KernelConstants.SocketCloseOnExec"] = "SOCK_CLOEXEC",
        ["KernelConstants.LevelSocket"] = "SOL_SOCKET",
        ["KernelConstants.ReuseAddress"] = "SO_REUSEADDR",
        ["KernelConstants.SocketTypeOption"] = "SO_TYPE",
        ["KernelConstants.KeepAlive"] = "SO_KEEPALIVE",
        ["KernelConstants.AcceptsConnections"] = "SO_ACCEPTCONN",
        ["KernelConstants.LevelTcp"] = "IPPROTO_TCP",
        ["KernelConstants.TcpNoDelay"] = "TCP_NODELAY",
        ["KernelConstants.TcpKeepIdle"] = "TCP_KEEPIDLE",
        ["KernelConstants.TcpKeepInterval"] = "TCP_KEEPINTVL",
        ["KernelConstants.TcpKeepCount"] = "TCP_KEEPCNT",
        ["KernelConstants.LevelIpv6"] = "IPPROTO_IPV6",
        ["KernelConstants.Ipv6Only"] = "IPV6_V6ONLY",
        ["KernelConstants.MessageDontWait"] = "MSG_DONTWAIT",
        ["KernelConstants.MessageNoSignal"] = "MSG_NOSIGNAL",
        ["KernelConstants.ShutdownSend"] = "SHUT_WR",
        ["KernelConstants.ShutdownBoth"] = "SHUT_RDWR",
    };

    internal static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> Structures = new()
    {
        ["MessageHeader"] = ("struct msghdr", new()
        {
            ["Name"] = "msg_name",
            ["NameLength"] = "msg_namelen",
            ["Vectors"] = "msg_iov",
            ["VectorCount"] = "msg_iovlen",
            ["Control"] = "msg_control",
            ["ControlLength"] = "msg_controllen",
            ["Flags"] = "msg_flags",
        }),
        ["ControlHeader"] = ("struct cmsghdr", new()
        {
            ["Length"] = "cmsg_len",
            ["Level"] = "cmsg_level",
            ["Type"] = "cmsg_type",
        }),
        ["Credentials"] = ("struct ucred", new()
        {
            ["ProcessId"] = "pid",
            ["UserId"] = "uid",
            ["GroupId"] = "gid",
        }),
    };
}
