namespace Cbd.Host.Attachments;

/// <summary>
/// Gives devices to this machine's kernel, so that they are block devices there: <c>/dev/cbd0</c>. Thread-safe.
/// </summary>
internal interface IKernelExports
{
    /// <summary>
    /// Removes what killed daemons left: names and devices of the kernel. Called when the daemon starts, and before a
    /// device is attached. Nothing is thrown.
    /// </summary>
    /// <param name="log">Gets a line for each thing found.</param>
    /// <param name="isKept">Names of devices that go on, and keep their links; null: none.</param>
    void CleanUp(Action<string> log, Predicate<string>? isKept = null);

    /// <summary>
    /// The kind of attachment for what was asked for (<see cref="AttachChoice"/>); null for NBD over a socket, with a note
    /// for the user if that is not what was asked for by name. Throws Unsupported if a kind by name cannot be had.
    /// </summary>
    (string? Kind, string Note) Choose(string asked);

    /// <summary>Whether devices of that kind go on in this kernel when their daemon dies, until another one serves them.</summary>
    bool Outlives(string kind);

    /// <summary>
    /// Takes the name and what the kind needs of the kernel; nothing is given to users yet. Throws
    /// <see cref="CbdException"/>, and holds nothing then.
    /// </summary>
    IExport Open(string kind, KernelExportOptions options);

    /// <summary>Throws Invalid if the path is, or lies on, a device of that region on this machine.</summary>
    void RefuseStacked(string path, Guid region);

    /// <summary>Whether a disk is, or lies on, that node of the kernel.</summary>
    bool LiesOn(string path, string node);

    /// <summary>Whether another daemon of this machine wants a device of that name, running or not.</summary>
    /// <param name="name">The name.</param>
    /// <param name="owner">This daemon: its host uuid and state directory.</param>
    bool IsNameWanted(string name, string owner);

    /// <summary>Wants a name for this daemon, also while it does not run. Throws Busy if another one wants it.</summary>
    void ReserveName(string name, string owner);

    /// <summary>Wants these names and no others.</summary>
    void KeepNames(IReadOnlyCollection<string> names, string owner);
}

/// <summary>What a device is attached with.</summary>
internal sealed record KernelExportOptions
{
    /// <summary>Name of the device on this machine: <c>cbd0</c>; <c>cbd1.0</c> on a second transport.</summary>
    public required string Name { get; init; }

    /// <summary>The region that the device belongs to.</summary>
    public required Guid Region { get; init; }

    /// <summary>What the device's attachment is over the deaths of daemons; null: it ends with this process.</summary>
    public AttachmentLife? Life { get; init; }

    /// <summary>Gets one line per message that an operator may want to see; called from any thread.</summary>
    public required Action<string> Log { get; init; }
}
