namespace Cbd.Host.Wanted;

/// <summary>Where a record is kept: it outlives the process, and a loss of power.</summary>
internal interface IRecordMedium
{
    /// <summary>Replaces all of it, or throws <see cref="CbdException"/> with nothing changed.</summary>
    void Write(IReadOnlyList<StateEntry> entries);
}
