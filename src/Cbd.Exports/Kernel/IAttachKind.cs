using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Attachments;

namespace Cbd.Exports.Kernel;

/// <summary>
/// One way to give a device to this machine's kernel, so that it is a block device there: ublk, nbd or fuse. One object
/// serves a whole daemon. Thread-safe.
/// </summary>
/// <remarks>
/// What is the same for all kinds is done around them (<see cref="AttachedExport"/>): the link <c>/dev/cbdN</c>, who
/// uses the device, the choice of a kind.
/// </remarks>
internal interface IAttachKind
{
    /// <summary>As in <c>dev-start --attach</c>: "ublk", "nbd" or "fuse".</summary>
    string Name { get; }

    /// <summary>
    /// This kernel has it and this process may use it. Cheap; changes nothing. Otherwise
    /// <paramref name="whyNot"/> says what is missing (module, node, capability, kernel version) and how to get it, as
    /// the rest of a sentence: "/dev/ublk-control does not exist: load the module with 'modprobe ublk_drv'".
    /// </summary>
    bool IsAvailable(out string whyNot);

    /// <summary>This kernel keeps devices of that kind when their daemon dies, until another one serves them. Of a kind that is available.</summary>
    bool Outlives => false;

    /// <summary>
    /// Takes what the device needs of the kernel that may be refused, and gives nothing to users yet. Throws
    /// <see cref="CbdException"/>, and holds nothing then.
    /// </summary>
    IKernelAttachment Open(KernelExportOptions options);

    /// <summary>
    /// The kernel's device with that name is one that outlives its daemon, and no leftover of this one's: its name is not removed, though
    /// the daemon has ended. Cheap; nothing is thrown.
    /// </summary>
    bool GoesOn(string kernelName) => false;

    /// <summary>
    /// Finds what killed daemons left in the kernel: their devices, mounts, connections; nothing of living processes, other
    /// daemons included. Each is to be removed, or not, before the next is asked for. Asked for when the daemon starts, and
    /// before a device is attached. <paramref name="log"/> gets a line for what cannot be looked at; nothing is thrown.
    /// </summary>
    IEnumerable<KernelLeftover> FindLeftovers(Action<string> log);
}

/// <summary>A device of this kernel that a killed daemon left.</summary>
/// <param name="Node">The kernel's node, e.g. <c>/dev/loop0</c>.</param>
/// <param name="Remove">
/// Gives the node back, and returns a line for the log, also where that cannot be done. Called when nothing leads to the
/// node any more.
/// </param>
internal sealed record KernelLeftover(string Node, Func<string> Remove);

/// <summary>
/// One device in this machine's kernel. <see cref="Serve"/> is called once, then <see cref="Resize"/> any number of
/// times, then <see cref="Stop"/>; <see cref="IDisposable.Dispose"/> always, after which nothing is left. One thread at
/// a time, except <see cref="Node"/>.
/// </summary>
internal interface IKernelAttachment : IDisposable
{
    /// <summary>The kernel's node, e.g. <c>/dev/ublkb0</c>; empty until <see cref="Serve"/> has returned.</summary>
    string Node { get; }

    /// <summary>
    /// Serves <paramref name="device"/> on threads of its own, one per queue, and makes the kernel's block device: when
    /// it returns the node is there and can be opened. Throws <see cref="CbdException"/> if the kernel
    /// refuses; <see cref="Stop"/> need not be called then. One that <see cref="CbdException.MayPass"/> has changed nothing of what a
    /// process before this one left, and this may be called again.
    /// </summary>
    void Serve(IBlockDevice device, int queues, PollMode mode);

    /// <summary>
    /// The device has another size (<see cref="IBlockDevice.Info"/>): the kernel's gets it too, while in use. Throws
    /// Unsupported, naming the kernel version that is needed, where that cannot be done.
    /// </summary>
    void Resize();

    /// <summary>It serves what a process before this one served.</summary>
    bool GoesOn => false;

    /// <inheritdoc cref="IExport.LookAgain"/>
    Action? LookAgain
    {
        get => null;
        set { }
    }

    /// <inheritdoc cref="IExport.FindTrouble"/>
    string? FindTrouble() => null;

    /// <summary>
    /// Ends the threads and leaves the kernel's block device and all that is in flight to a successor (<see cref="KernelExportOptions.Life"/>):
    /// nothing that the device has not done is answered. Only <see cref="IDisposable.Dispose"/> may follow. False, and nothing is done, where
    /// nobody would keep it.
    /// </summary>
    bool TryPark() => false;

    /// <summary>
    /// Ends what a process before this one left, when <see cref="Serve"/> could not go on with it: its users get I/O errors, nothing waits any
    /// more, and what is left of it in the kernel is a leftover. Nothing to do for what has no life.
    /// </summary>
    void Abandon()
    {
    }

    /// <summary>
    /// Removes the kernel's block device, then ends the threads after their requests were answered, and closes the
    /// queues. Nobody seemed to use the device, unless <paramref name="force"/>: then its users get I/O errors from here
    /// on, and what they still hold goes when they let it go. Not forced it may throw
    /// <see cref="CbdException"/> (Busy) if the kernel says that it is in use after all; it serves on then.
    /// </summary>
    void Stop(bool force);
}
