using System.Text.Json;
using Cbd.Host;
using Cbd.Memory;

namespace Cbd.Programs.Daemon.State;

/// <summary><c>&lt;state-dir&gt;/state.json</c>: replaced as a whole, durably, with every change.</summary>
internal sealed class StateFile(string stateDirectory)
{
    /// <summary>Largest record taken, bytes.</summary>
    private const long MaxBytes = 64 << 20;

    public string FilePath { get; } = System.IO.Path.Combine(stateDirectory, "state.json");

    public void Write(IReadOnlyList<StateEntry> entries)
    {
        var document = new StateDocument { Version = StateDocument.CurrentVersion, Entries = entries };
        AtomicFile.Write(FilePath, [.. JsonSerializer.SerializeToUtf8Bytes(document, StateJson.Default.StateDocument), (byte)'\n']);
    }

    /// <summary>The record; empty if there is none. Throws if it is there and not right.</summary>
    public IReadOnlyList<StateEntry> Read()
    {
        StateDocument document;
        try
        {
            using var file = new FileStream(FilePath, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
            if (file.Length > MaxBytes)
                throw Bad($"it has {file.Length} bytes");
            document = JsonSerializer.Deserialize(file, StateJson.Default.StateDocument) ?? throw Bad("it is null");
        }
        catch (FileNotFoundException)
        {
            return [];
        }
        catch (JsonException e)
        {
            throw Bad(e.Message);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Failed, $"cannot read the state file '{FilePath}': {e.Message}", e);
        }

        if (document.Version != StateDocument.CurrentVersion)
            throw Bad($"its version is {document.Version} and this cbdd knows {StateDocument.CurrentVersion}");
        for (var i = 0; i < document.Entries.Count; i++)
            Check(document.Entries[i], i);
        return [.. document.Entries.Select(entry => entry with { IsPending = true })];
    }

    private void Check(StateEntry? entry, int index)
    {
        if (entry is null)
            throw Bad($"entry {index} is null");
        var kinds = (entry.Transport is null ? 0 : 1) + (entry.Backend is null ? 0 : 1) + (entry.Device is null ? 0 : 1);
        if (kinds != 1)
            throw Bad($"entry {index} is {kinds} things and not one transport, backend or device");
    }

    private CbdException Bad(string how) => new(CbdErrorKind.Corrupt,
        $"the state file '{FilePath}' is not right: {how.TrimEnd('.')}; repair it, move it away, or start without --restore");
}
