using Cbd.Memory;
using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.State;

namespace Cbd.Fuzz;

/// <summary>The record of a daemon: it is right, or one error says where it is not. What was read can be written.</summary>
internal sealed class StateFileTarget : IFuzzTarget
{
    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-fuzz-").FullName;

    public void Run(ReadOnlySpan<byte> input)
    {
        var file = new StateFile(_directory);
        File.WriteAllBytes(file.FilePath, input.ToArray());
        IReadOnlyList<StateEntry> entries;
        try
        {
            entries = file.Read();
        }
        catch (CbdException e)
        {
            FuzzTargets.Check(e.Kind == CbdErrorKind.Corrupt, "a bad record is called one");
            return;
        }

        file.Write(entries);
        FuzzTargets.Check(file.Read().Count == entries.Count, "what was written is read back");
    }
}
