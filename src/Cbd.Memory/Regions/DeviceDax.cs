using System.Globalization;

namespace Cbd.Memory;

/// <summary>Size and alignment of a device-DAX node, bytes (Documentation/ABI/testing/sysfs-bus-dax of the kernel).</summary>
internal readonly record struct DeviceDax(long SizeBytes, int AlignmentBytes)
{
    private const int DefaultAlignmentBytes = 2 << 20;

    /// <summary>Reads the facts of a character device; null if it is not device-DAX.</summary>
    internal static DeviceDax? TryRead(uint major, uint minor, string sysRoot = "/sys")
    {
        string device = $"{sysRoot}/dev/char/{major}:{minor}";
        var subsystem = new FileInfo($"{device}/subsystem");
        if (subsystem.LinkTarget is not { } target || Path.GetFileName(target) != "dax")
            return null;
        long size = ReadNumber($"{device}/size") ??
            throw new CbdException(CbdErrorKind.Unsupported, $"{device}/size is missing: the size of the device is not known");
        // Older kernels have no align; they map at 2 MiB unless told otherwise.
        long alignment = ReadNumber($"{device}/align") ?? DefaultAlignmentBytes;
        if (size <= 0 || alignment is < 4096 or > 1 << 30 || (alignment & (alignment - 1)) != 0)
            throw new CbdException(CbdErrorKind.Unsupported, $"{device} tells size {size} and align {alignment}, which cannot be mapped");
        return new DeviceDax(size, (int)alignment);
    }

    private static long? ReadNumber(string path)
    {
        if (!File.Exists(path))
            return null;
        string text = File.ReadAllText(path).Trim();
        bool isHex = text.StartsWith("0x", StringComparison.Ordinal);
        return long.TryParse(isHex ? text[2..] : text, isHex ? NumberStyles.AllowHexSpecifier : NumberStyles.None, CultureInfo.InvariantCulture, out long value)
            ? value
            : throw new CbdException(CbdErrorKind.Unsupported, $"{path} holds '{text}', which is not a number");
    }
}
