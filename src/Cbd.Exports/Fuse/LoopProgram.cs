using System.Globalization;
using Cbd.Memory;

namespace Cbd.Exports.Fuse;

/// <summary>
/// What is done with loop devices in a process of its own: these calls wait for the server of the file, and are never
/// made by it. A hidden subcommand of the daemon's program; <see cref="LoopProcess"/> starts it.
/// </summary>
internal static class LoopProgram
{
    /// <summary>The first word of its command line.</summary>
    public const string Verb = "--loop-device";

    internal const string ConfigureVerb = "configure";
    internal const string ClearVerb = "clear";
    internal const string ResizeVerb = "resize";

    /// <summary>Exit codes above this are <see cref="CbdErrorKind"/>s.</summary>
    internal const int FirstErrorCode = 64;

    /// <summary>Does one thing and returns the exit code. Writes one line: the device, or what went wrong.</summary>
    public static int Run(ReadOnlySpan<string> words, TextWriter output)
    {
        try
        {
            switch (words)
            {
                case [ConfigureVerb, var mount, var file, var block, var mode]:
                    output.Write(Configure(Inherited(mount), file, Number(block), mode == "ro"));
                    return 0;
                case [ClearVerb, var device, var file, var how]:
                    LoopDevice.Clear(device, file, exclusive: how == "exclusive");
                    return 0;
                case [ResizeVerb, var device]:
                    LoopDevice.UpdateSize(device);
                    return 0;
                default:
                    throw new CbdException(CbdErrorKind.Invalid, $"{Verb} is for this program's own use");
            }
        }
        catch (CbdException error)
        {
            output.Write(error.Message);
            return FirstErrorCode + (int)error.Kind;
        }
    }

    private static string Configure(FileDescriptor mount, string file, int blockBytes, bool readOnly)
    {
        int error = mount.TryOpenBelow(file, readOnly ? OpenFlags.ReadOnly : OpenFlags.ReadWrite, out FileDescriptor? descriptor);
        using FileDescriptor? opened = descriptor;
        if (opened is null)
            throw new SystemCallException("open", -error, file);
        return LoopDevice.Configure(opened, blockBytes, readOnly);
    }

    private static FileDescriptor Inherited(string word) => FileDescriptor.Own(Number(word), "mount");

    private static int Number(string word) => int.TryParse(word, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
        ? number
        : throw new CbdException(CbdErrorKind.Invalid, $"'{word}' is no number");
}
