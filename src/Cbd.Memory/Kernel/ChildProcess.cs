using System.Globalization;

namespace Cbd.Memory;

/// <summary>How a process ended: by itself with a code, or by a signal. Exactly one of the two is there.</summary>
public readonly record struct ProcessEnd(int? ExitCode, int? Signal)
{
    public override string ToString() =>
        ExitCode is { } code ? string.Create(CultureInfo.InvariantCulture, $"exit code {code}") : string.Create(CultureInfo.InvariantCulture, $"signal {Signal}");
}

/// <summary>What a program is started with, besides descriptors 0 to 2.</summary>
public sealed record ChildStart
{
    /// <summary>The program. It is started from this descriptor and not by a path.</summary>
    public required FileDescriptor Program { get; init; }

    /// <summary>Its words, the name of the program first.</summary>
    public required IReadOnlyList<string> Words { get; init; }

    /// <summary>Changes of this process's environment; null takes a variable away.</summary>
    public IReadOnlyDictionary<string, string?> Environment { get; init; } = new Dictionary<string, string?>();

    /// <summary>Variables that get the process id of the program.</summary>
    public IReadOnlyList<string> ProcessIdVariables { get; init; } = [];

    /// <summary>What it gets from descriptor 3 on, in this order. Nothing else of this process is open in it.</summary>
    public IReadOnlyList<FileDescriptor> Descriptors { get; init; } = [];
}

/// <summary>
/// A program that this process started, and has to wait for. .NET's own class for processes must not be used beside it: that reaps all children.
/// </summary>
public sealed unsafe class ChildProcess : IDisposable
{
    /// <summary>CBD_ENDED_BY_SIGNAL.</summary>
    private const int EndedBySignal = 256;

    /// <summary>What a process id takes in an environment, until its digits are there.</summary>
    private const string RoomForNumber = "00000000000";

    private ChildProcess(ProcessDescriptor process) => Process = process;

    /// <summary>The process; it is a child of this one until <see cref="AwaitEnd"/> has returned.</summary>
    public ProcessDescriptor Process { get; }

    public int ProcessId => Process.ProcessId;

    /// <summary>Starts a program. It runs when this returns.</summary>
    /// <exception cref="SystemCallException">It cannot be started; nothing is left of it.</exception>
    public static ChildProcess Start(ChildStart start)
    {
        int numbers = start.ProcessIdVariables.Count;
        using var words = new NativeStrings(start.Words);
        using var changes = new NativeStrings(
            [.. start.ProcessIdVariables.Select(name => $"{name}={RoomForNumber}"), .. start.Environment.Select(change => change.Value is null ? change.Key : $"{change.Key}={change.Value}")]);
        byte** places = stackalloc byte*[numbers + 1];
        for (int i = 0; i < numbers; i++)
            places[i] = changes[i] + start.ProcessIdVariables[i].Length + 1;
        int[] descriptors = [.. start.Descriptors.Select(descriptor => descriptor.Number)];
        int process, result;
        // SAFETY: the strings and the places in them live until the call returns, and the numbers are pinned. The places have 12 bytes each.
        fixed (int* first = descriptors)
        {
            var request = new NativeShim.SpawnRequest
            {
                Arguments = words.Start,
                Changes = changes.Start,
                ChangeCount = (uint)(numbers + start.Environment.Count),
                Numbers = places,
                NumberCount = (uint)numbers,
                Descriptors = first,
                DescriptorCount = (uint)descriptors.Length,
                Program = start.Program.Number,
            };
            result = NativeShim.Spawn(&request, &process);
        }

        GC.KeepAlive(start);
        return result > 0
            ? new ChildProcess(new ProcessDescriptor(result, FileDescriptor.Own(process, $"process {result}")))
            : throw new SystemCallException("spawn", -result, start.Words[0]);
    }

    /// <summary>Waits, however long, until the whole process has ended, all of its threads, and says how. Once.</summary>
    public ProcessEnd AwaitEnd()
    {
        int result = NativeShim.AwaitEnd(ProcessId);
        return result switch
        {
            < 0 => throw new SystemCallException("waitid", -result, $"process {ProcessId}"),
            >= EndedBySignal => new ProcessEnd(null, result - EndedBySignal),
            _ => new ProcessEnd(result, null),
        };
    }

    public void Dispose() => Process.Dispose();
}
