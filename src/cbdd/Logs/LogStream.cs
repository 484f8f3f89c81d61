using System.Text;
using Cbd.Host.Logs;
using Cbd.Memory;

namespace Cbd.Programs.Daemon.Logs;

/// <summary>Writes lines of the log to standard error, each as a whole. One thread at a time.</summary>
internal sealed class LogStream(StandardStream stream, bool asJson)
{
    private bool _isInLine;

    /// <exception cref="CbdException">It cannot be written, or only in part: the next line begins on a new one.</exception>
    public void Write(LogEvent line)
    {
        var bytes = Encoding.UTF8.GetBytes($"{(_isInLine ? "\n" : "")}{LogText.Format(line, asJson)}\n");
        var error = stream.TryWrite(bytes, out var written);
        if (written > 0)
            _isInLine = written < bytes.Length;
        if (error != 0)
            throw new SystemCallException("write", -error, stream.Name);
    }
}
