using Cbd.Memory;

namespace Cbd.Host.Attachments;

/// <summary>An open descriptor under the name that a store keeps it by.</summary>
/// <param name="Name">As <see cref="AttachmentLife.ChannelName"/> and <see cref="AttachmentLife.RecordName"/> give it.</param>
/// <param name="Descriptor">Owned by who gives it.</param>
internal readonly record struct KeptDescriptor(string Name, FileDescriptor Descriptor);

/// <summary>
/// One attachment of a device, from its start to its stop, over any number of processes: who it belongs to, and what keeps its descriptors
/// while no process serves it.
/// </summary>
internal sealed class AttachmentLife
{
    /// <summary>Host of the state directory.</summary>
    public required Guid Host { get; init; }

    /// <summary>Random, not 0; no other attachment ever has it.</summary>
    public required ulong Id { get; init; }

    /// <summary>
    /// Keeps duplicates of the descriptors and returns when they are kept for sure. Called before the first of them is read. Throws
    /// <see cref="CbdException"/> if they cannot be kept. Null: nothing of the attachment outlives this process.
    /// </summary>
    public Action<IReadOnlyList<KeptDescriptor>>? Keep { get; init; }

    /// <summary>Closes the duplicates of the descriptors of those names. Must not throw. Called when the attachment is over.</summary>
    public Action<IReadOnlyList<string>>? Forget { get; init; }

    /// <summary>
    /// What a process before this one had kept: the attachment goes on with it. Empty: it is new. The attachment owns these descriptors once
    /// it serves them.
    /// </summary>
    public IReadOnlyList<KeptDescriptor> Given { get; init; } = [];

    /// <summary>
    /// A process before this one began the attachment, and it goes on. Those kinds that the kernel keeps by itself have no descriptors to be
    /// given then, but <see cref="Number"/>.
    /// </summary>
    public bool IsGiven { get; init; }

    /// <summary>The kernel's number of the block device that it goes on with; −1 if the process before this one had not come so far.</summary>
    public int Number { get; init; } = -1;

    /// <summary>There is something of it in the kernel that a process before this one served.</summary>
    public bool GoesOn => Given.Count > 0 || (IsGiven && Number >= 0);

    /// <summary>Stores the kernel's number of its block device, before that serves anybody.</summary>
    public Action<int>? StoreNumber { get; init; }

    /// <summary>
    /// The process before this one may have died of a request: each that is executed again is counted, and after three gets EIO. False if it
    /// is known that it was ended by somebody.
    /// </summary>
    public bool CountsDeaths { get; init; } = true;

    /// <summary>The session of the backend in which requests are taken now; stored with each of them. Set before the attachment serves; any thread calls it.</summary>
    public Func<ulong>? SessionOf { get; set; }

    /// <summary>See <see cref="SessionOf"/>; 0 if nobody tells.</summary>
    public ulong Session => SessionOf?.Invoke() ?? 0;

    /// <summary>The life's id in names.</summary>
    public string Text => TextOf(Id);

    /// <summary>An id as names have it: 16 digits.</summary>
    public static string TextOf(ulong id) => id.ToString("x16", System.Globalization.CultureInfo.InvariantCulture);

    /// <summary>Name of a channel of <c>/dev/fuse</c>.</summary>
    public string ChannelName(int queue) => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"fuse-{Text}-{queue}");

    /// <summary>Name of the memory of a queue's in-flight record.</summary>
    public string RecordName(int queue) => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"inflight-{Text}-{queue}");
}

/// <summary>
/// The lives that this daemon serves, or was given to serve. The daemon alone has the lock of its state directory, so what bears its host
/// uuid and is none of these was left. Thread-safe.
/// </summary>
/// <param name="host">Host of the state directory.</param>
internal sealed class AttachmentLives(Guid host)
{
    private readonly HashSet<ulong> _lives = [];

    /// <summary>The life is this daemon's from now on, and nobody removes what is its.</summary>
    public void Add(ulong life)
    {
        lock (_lives)
            _lives.Add(life);
    }

    /// <summary>The life is this daemon's.</summary>
    public bool Has(ulong life)
    {
        lock (_lives)
            return _lives.Contains(life);
    }

    /// <summary>The life is over: what is left of it may be removed.</summary>
    public void Remove(ulong life)
    {
        lock (_lives)
            _lives.Remove(life);
    }

    /// <summary>
    /// What bears marks that have no room for all of host and life was left by a daemon of this state directory: the host fits, and no life of
    /// this daemon does.
    /// </summary>
    public bool IsLeftover(Predicate<Guid> isOwner, Predicate<ulong> isLife)
    {
        if (!isOwner(host))
            return false;
        lock (_lives)
            return !_lives.Any(life => isLife(life));
    }

    /// <summary>What bears these marks was left by a daemon of this state directory.</summary>
    public bool IsLeftover(Guid owner, ulong life)
    {
        if (owner != host)
            return false;
        lock (_lives)
            return !_lives.Contains(life);
    }
}
