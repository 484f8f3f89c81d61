using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// Flags of open(2), with the values of x86-64; <see cref="OpenFlagValues.ToNative(OpenFlags)"/> gives those of the running machine.
/// O_CLOEXEC is always added: no descriptor is inherited by accident.
/// </summary>
[Flags]
public enum OpenFlags
{
    ReadOnly = 0,
    WriteOnly = 1,
    ReadWrite = 2,
    Create = 0x40,

    /// <summary>With <see cref="Create"/>: fail if it exists. Without, on a block device: fail if it is in use.</summary>
    Exclusive = 0x80,
    Truncate = 0x200,
    NonBlocking = 0x800,
    DataSync = 0x1000,
    Direct = 0x4000,
    Directory = 0x10000,
    NoFollow = 0x20000,
    CloseOnExec = 0x80000,
}

internal static class OpenFlagValues
{
    internal static int ToNative(this OpenFlags flags) => flags.ToNative(RuntimeInformation.ProcessArchitecture);

    /// <summary>arm64 has its own numbers for three flags.</summary>
    internal static int ToNative(this OpenFlags flags, Architecture architecture)
    {
        const OpenFlags moved = OpenFlags.Direct | OpenFlags.Directory | OpenFlags.NoFollow;
        if (architecture == Architecture.X64)
            return (int)flags;
        int native = (int)(flags & ~moved);
        if (flags.HasFlag(OpenFlags.Direct))
            native |= 0x10000;
        if (flags.HasFlag(OpenFlags.Directory))
            native |= 0x4000;
        if (flags.HasFlag(OpenFlags.NoFollow))
            native |= 0x8000;
        return native;
    }
}
