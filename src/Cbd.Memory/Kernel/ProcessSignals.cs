using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Signals that this process handles itself, on a thread that exists before the first of them comes: .NET's registrations start a
/// thread for each signal, and end the process where none can be had.
/// </summary>
public sealed class ProcessSignals
{
    /// <summary>SIGUSR1, for which .NET has no name. A supervisor tells its worker with it that no other one follows.</summary>
    public const PosixSignal EndForGood = (PosixSignal)SignalUser1;

    private static readonly (PosixSignal Signal, int Number)[] s_numbers =
    [
        (PosixSignal.SIGHUP, SignalHangUp), (PosixSignal.SIGINT, SignalInterrupt), (PosixSignal.SIGQUIT, SignalQuit), (PosixSignal.SIGTERM, SignalTerminate),
        (EndForGood, SignalUser1),
    ];

    private readonly FileDescriptor _pipe;
    private readonly Action<PosixSignal> _handle;

    private ProcessSignals(FileDescriptor pipe, Action<PosixSignal> handle)
    {
        _pipe = pipe;
        _handle = handle;
    }

    /// <summary>
    /// Has SIGHUP, SIGINT, SIGQUIT, SIGTERM and SIGUSR1 handled from now on, to the end of the process. SIGINT stays ignored if it is: the process
    /// was started in the background then. Once per process.
    /// </summary>
    /// <param name="handle">Called on a thread of its own, one signal after the other; must neither throw nor wait for long.</param>
    /// <exception cref="CbdException">There is no descriptor or no thread, or it was done before.</exception>
    public static ProcessSignals Start(Action<PosixSignal> handle)
    {
        int pipe = NativeShim.OpenSignals();
        if (pipe < 0)
            throw new SystemCallException("pipe2", -pipe, "signals");
        var signals = new ProcessSignals(FileDescriptor.Own(pipe, "signals"), handle);
        NeededThread.Start("cbd-signals", signals.Run);
        foreach ((PosixSignal signal, int number) in s_numbers)
        {
            int error = NativeShim.WatchSignal(number, signal == PosixSignal.SIGINT ? 1 : 0);
            if (error < 0)
                throw new SystemCallException("sigaction", -error, signal.ToString());
        }

        return signals;
    }

    /// <summary>Ends the process as the signal does by default.</summary>
    public static void EndBy(PosixSignal signal) => EndBy(NumberOf(signal));

    /// <summary>The same by number; returns if that signal does not end a process.</summary>
    public static void EndBy(int number) => _ = NativeShim.EndBySignal(number);

    internal static int NumberOf(PosixSignal signal) => Array.Find(s_numbers, pair => pair.Signal == signal).Number;

    private void Run()
    {
        Span<byte> numbers = stackalloc byte[16];
        while (true)
        {
            int count = _pipe.Read(numbers);
            foreach (byte number in numbers[..count])
                _handle(Array.Find(s_numbers, pair => pair.Number == number).Signal);
        }
    }
}
