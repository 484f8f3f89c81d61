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

    /// <summary>A terminal that is opened does not become this process's.</summary>
    NoTerminal = 0x100,
    NonBlocking = 0x800,
    Direct = 0x4000,

    /// <summary>Fail if it is no directory.</summary>
    Directory = 0x10000,

    /// <summary>Fail if the last part of the path is a symbolic link.</summary>
    NoFollow = 0x20000,
    CloseOnExec = 0x80000,

    /// <summary>A place in the tree of files alone: it can neither be read nor written, and nothing is asked but the way to it.</summary>
    Path = 0x200000,
}

internal static class OpenFlagValues
{
    internal static int ToNative(this OpenFlags flags) => flags.ToNative(RuntimeInformation.ProcessArchitecture);

    /// <summary>arm64 has its own numbers for O_DIRECT, O_DIRECTORY and O_NOFOLLOW.</summary>
    internal static int ToNative(this OpenFlags flags, Architecture architecture)
    {
        const int arm64Direct = 0x10000, arm64Directory = 0x4000, arm64NoFollow = 0x8000;
        return architecture == Architecture.X64
            ? (int)flags
            : (int)(flags & ~(OpenFlags.Direct | OpenFlags.Directory | OpenFlags.NoFollow)) |
                (flags.HasFlag(OpenFlags.Direct) ? arm64Direct : 0) | (flags.HasFlag(OpenFlags.Directory) ? arm64Directory : 0) |
                (flags.HasFlag(OpenFlags.NoFollow) ? arm64NoFollow : 0);
    }
}
