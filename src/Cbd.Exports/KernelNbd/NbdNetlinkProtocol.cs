namespace Cbd.Exports.KernelNbd;

/// <summary>
/// The numbers of the kernel's NBD client (linux/nbd-netlink.h) and of the family that finds families
/// (linux/genetlink.h). A test compares them with the installed headers.
/// </summary>
internal static class NbdNetlinkProtocol
{
    internal const string FamilyName = "nbd";
    internal const byte Version = 1;

    // Commands.
    internal const byte CommandConnect = 1;
    internal const byte CommandDisconnect = 2;
    internal const byte CommandReconfigure = 3;

    // Attributes.
    internal const ushort AttributeIndex = 1;
    internal const ushort AttributeSizeBytes = 2;
    internal const ushort AttributeBlockBytes = 3;
    internal const ushort AttributeTimeout = 4;
    internal const ushort AttributeServerFlags = 5;
    internal const ushort AttributeSockets = 7;
    internal const ushort AttributeDeadConnectionTimeout = 8;
    internal const ushort AttributeBackend = 10;
    internal const ushort SocketItem = 1;
    internal const ushort SocketDescriptor = 1;

    // The family that finds families.
    internal const ushort ControlFamily = 16;
    internal const byte ControlVersion = 2;
    internal const byte ControlGetFamily = 3;
    internal const ushort ControlFamilyId = 1;
    internal const ushort ControlFamilyName = 2;
}
