using System.Globalization;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>Settings of this kernel in <c>/sys</c>.</summary>
internal static class KernelSettings
{
    /// <summary>Stores a number. Returns 0 or a negative errno.</summary>
    internal static int TryWrite(string path, int value)
    {
        int error = FileDescriptor.TryOpen(path, OpenFlags.WriteOnly, 0, out FileDescriptor? opened);
        using FileDescriptor? file = opened;
        return file is null ? error : file.TryWriteText(value.ToString(CultureInfo.InvariantCulture));
    }
}
