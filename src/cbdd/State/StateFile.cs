using System.Text.Json;
using Cbd.Host;
using Cbd.Host.Wanted;
using Cbd.Memory;

namespace Cbd.Programs.Daemon.State;

/// <summary>
/// <c>&lt;state-dir&gt;/wanted.json</c>: replaced as a whole, durably, with every change. Versions before kept
/// <c>state.json</c>, which is read if there is nothing newer, and set aside by the first change.
/// </summary>
internal sealed class StateFile(string stateDirectory, MachineIdentity? machine = null, OwnerTrust? trust = null) : IRecordMedium
{
    /// <summary>Largest record taken, bytes.</summary>
    private const long MaxBytes = 64 << 20;

    /// <summary>What the reserve has: a disk that is full then still takes a record.</summary>
    private const int ReserveBytes = 256 << 10;

    private const int OldVersion = 1;

    private readonly string _oldPath = System.IO.Path.Combine(stateDirectory, "state.json");
    private readonly string _reservePath = System.IO.Path.Combine(stateDirectory, "wanted.reserve");

    private bool _isReserving;

    public string FilePath { get; } = System.IO.Path.Combine(stateDirectory, "wanted.json");

    public void Write(IReadOnlyList<StateEntry> entries)
    {
        var document = new StateDocument { Version = StateDocument.CurrentVersion, Machine = machine, Entries = entries };
        byte[] bytes = [.. JsonSerializer.SerializeToUtf8Bytes(document, StateJson.Default.StateDocument), (byte)'\n'];
        try
        {
            AtomicFile.Write(FilePath, bytes);
        }
        catch (CbdException e) when (e.InnerException is IOException full && Exhaustion.IsOfSpace(full.HResult) && File.Exists(_reservePath))
        {
            Delete(_reservePath);
            AtomicFile.Write(FilePath, bytes);
        }

        SetOldAside();
        // Also where a change before this one has used it.
        if (_isReserving)
            Reserve();
    }

    /// <summary>Takes the space that a stop needs on a full disk, if it can be had.</summary>
    public void Reserve()
    {
        _isReserving = true;
        try
        {
            if (!File.Exists(_reservePath))
                AtomicFile.Write(_reservePath, new byte[ReserveBytes]);
        }
        catch (CbdException)
        {
            // The next change that can be written has room.
        }
    }

    /// <summary>The machine that wrote the record that was read; null if there is none, or it does not say.</summary>
    public MachineIdentity? Writer { get; private set; }

    /// <summary>The record; empty if there is none. Throws Corrupt, and leaves it as it is, if it is there and cannot be read.</summary>
    public IReadOnlyList<StateEntry> Read()
    {
        // An older cbdd ran meanwhile: nobody knows which of the two is right.
        if (File.Exists(FilePath) && File.Exists(_oldPath) && File.GetLastWriteTimeUtc(_oldPath) > File.GetLastWriteTimeUtc(FilePath))
            throw new CbdException(CbdErrorKind.Corrupt, $"the record '{_oldPath}' of an older cbdd is newer than '{FilePath}': move the one away that is not right");
        return ReadNewest();
    }

    private IReadOnlyList<StateEntry> ReadNewest() => TryRead(FilePath, StateDocument.CurrentVersion) ?? Named(TryRead(_oldPath, OldVersion)) ?? [];

    /// <summary>Versions before did not record what a device was called: its id said it.</summary>
    private static IReadOnlyList<StateEntry>? Named(IReadOnlyList<StateEntry>? entries)
    {
        if (entries is null)
            return null;
        List<string> regions = [.. entries.Where(e => e.Transport is not null).Select(e => e.Region)];
        return [.. entries.Select(entry => entry.Device is { Name: null } device
            ? entry with { Device = device with { Name = regions.IndexOf(entry.Region) is > 0 and var second ? $"cbd{second}.{device.BlkdevId}" : $"cbd{device.BlkdevId}" } }
            : entry)];
    }

    /// <summary>An older cbdd must not find what was true once.</summary>
    private void SetOldAside()
    {
        try
        {
            if (File.Exists(_oldPath))
                File.Move(_oldPath, $"{_oldPath}.version-{OldVersion}", overwrite: true);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // It is read by an older cbdd alone.
        }
    }

    private static void Delete(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The second try says why.
        }
    }

    private IReadOnlyList<StateEntry>? TryRead(string path, int version)
    {
        StateDocument document;
        try
        {
            using var file = ControlSyscalls.TryOpenOwnFile(path, "the record", trust: trust);
            if (file is null)
                return null;
            if (file.Length > MaxBytes)
                throw Bad(path, $"it has {file.Length} bytes");
            document = JsonSerializer.Deserialize(file, StateJson.Default.StateDocument) ?? throw Bad(path, "it is null");
        }
        catch (JsonException e)
        {
            throw Bad(path, e.Message);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CbdException(CbdErrorKind.Corrupt, $"the record '{path}' cannot be read: {e.Message}: make it readable, or move it away", e);
        }

        if (document.Version != version)
            throw Bad(path, $"its version is {document.Version} and this cbdd knows {version}");
        for (var i = 0; i < document.Entries.Count; i++)
            Check(path, document.Entries[i], i);
        Writer = document.Machine;
        return document.Entries;
    }

    private static void Check(string path, StateEntry? entry, int index)
    {
        if (entry is null)
            throw Bad(path, $"entry {index} is null");
        var kinds = (entry.Transport is null ? 0 : 1) + (entry.Backend is null ? 0 : 1) + (entry.Device is null ? 0 : 1);
        if (kinds != 1)
            throw Bad(path, $"entry {index} is {kinds} things and not one transport, backend or device");
        if (entry.Intent is { } intent && !Enum.IsDefined(intent))
            throw Bad(path, $"entry {index} has the intent {(int)intent}");
        if (entry.Device?.Name is { } name && !ThingName.IsValid(name))
            throw Bad(path, $"entry {index} is called '{name}'");
        if (entry.Deaths < 0)
            throw Bad(path, $"entry {index} has {entry.Deaths} deaths");
    }

    private static CbdException Bad(string path, string how) => new(CbdErrorKind.Corrupt,
        $"the record '{path}' is not right: {how.TrimEnd('.')}; repair it, or move it away");
}
