using System.CommandLine;
using System.Text;
using Cbd.Control.Api;
using Cbd.Memory;

namespace Cbd.Control;

/// <summary>
/// All output of a program. A result that cannot be written is an error with exit code 8. A message that cannot be written changes
/// nothing: the exit code says what the message would have said. Single-threaded.
/// </summary>
/// <param name="program">Its name, which messages begin with.</param>
/// <param name="patienceMs">How long a message waits for a reader that does not read; -1: for ever.</param>
internal sealed class ProgramOutput(string program, int patienceMs = Timeout.Infinite)
{
    private readonly MessageWriter _messages = new(patienceMs);

    /// <summary>Results. Each write throws <see cref="CbdException"/> if it cannot be done.</summary>
    public TextWriter Results { get; } = new ResultWriter();

    /// <summary>Messages; never throws.</summary>
    public TextWriter Messages => _messages;

    /// <summary>A person reads the results.</summary>
    public bool IsToTerminal { get; } = StandardStream.Output.IsTerminal;

    /// <summary>Where a person sees how far a verb is; null if none looks.</summary>
    public TextWriter? Progress => StandardStream.Error.IsTerminal ? _messages : null;

    /// <summary>Says what the user may not expect.</summary>
    public void Note(string message) => _messages.Write($"{program}: note: {OneLine.From(message)}\n");

    /// <summary>Says in one line what went wrong, and returns the exit code.</summary>
    public int Fail(string message, int exitCode)
    {
        _messages.Write($"{program}: {OneLine.From(message)}\n");
        return exitCode;
    }

    /// <summary>Prints what System.CommandLine prints by itself, which is help.</summary>
    public int PrintHelp(ParseResult line)
    {
        using var text = new StringWriter();
        line.Invoke(new InvocationConfiguration { Output = text, Error = text, EnableDefaultExceptionHandler = false });
        Results.Write(text.ToString());
        return ErrorKinds.ExitSuccess;
    }

    /// <summary>Runs the program; every error becomes one line and its exit code.</summary>
    public int Run(Func<int> run)
    {
        try
        {
            return run();
        }
        catch (Exception e)
        {
            // What a type needs once, of the system say, fails in there.
            while (e is TypeInitializationException { InnerException: { } cause })
                e = cause;
            return e switch
            {
                CbdException known => Fail(known.Message, ErrorKinds.ExitCodeOf(known)),
                OutOfMemoryException or ThreadStartException => Fail("there is no memory, or no thread, left for this process: raise its limits (ulimit -v and -u, the control group's memory.max and pids.max)", ErrorKinds.ExitCode(CbdErrorKind.Exhausted)),
                _ => Fail($"this is a bug, please report it: {e.GetType().Name}: {e.Message}", ErrorKinds.ExitBug),
            };
        }
    }

    private sealed class ResultWriter : TextWriter
    {
        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(char value) => Write(value.ToString());

        public override void Write(string? value)
        {
            var error = StandardStream.Output.TryWrite(Encoding.GetBytes(value ?? ""), out _);
            if (error != 0)
                throw new CbdException(CbdErrorKind.Failed, $"the result is not written: {new SystemCallException("write", -error, StandardStream.Output.Name).Message}; what the verb did is done, see the lists");
        }
    }

    private sealed class MessageWriter(int patienceMs) : TextWriter
    {
        /// <summary>A pipe that says that it can be written to takes so much without waiting.</summary>
        private const int AtOnceBytes = 4096;

        public override Encoding Encoding => Encoding.UTF8;

        public override void Write(char value) => Write(value.ToString());

        public override void Write(string? value)
        {
            ReadOnlySpan<byte> rest = Encoding.GetBytes(value ?? "");
            while (!rest.IsEmpty && (patienceMs == Timeout.Infinite || StandardStream.Error.IsWritableWithin(patienceMs)))
            {
                var part = rest[..Math.Min(AtOnceBytes, rest.Length)];
                if (StandardStream.Error.TryWrite(part, out _) != 0)
                    return;
                rest = rest[part.Length..];
            }
        }
    }
}
