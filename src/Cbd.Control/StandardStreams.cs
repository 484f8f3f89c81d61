using System.Text;

namespace Cbd.Control;

/// <summary>
/// Where programs write. Not <c>Console.Out</c> and <c>Console.Error</c>: with the first use of either, .NET puts the
/// terminal's keypad into application mode, which shows as stray bytes in what was captured from a terminal.
/// Thread-safe.
/// </summary>
public static class StandardStreams
{
    public static TextWriter Output { get; } = Open(Console.OpenStandardOutput());

    public static TextWriter Error { get; } = Open(Console.OpenStandardError());

    private static TextWriter Open(Stream stream) =>
        TextWriter.Synchronized(new StreamWriter(stream, new UTF8Encoding(encoderShouldEmitUTF8Identifier: false)) { AutoFlush = true });
}
