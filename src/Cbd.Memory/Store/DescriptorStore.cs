using System.Globalization;
using System.Text;

namespace Cbd.Memory.Store;

/// <summary>The manager that kept descriptors for this process has ended. The process goes on without a store.</summary>
public sealed class StoreGoneException : CbdException
{
    public StoreGoneException()
        : base(CbdErrorKind.Failed, "the descriptor store is gone, because the supervisor or service manager of this process has ended: restart cbdd when its devices may pause")
    {
    }
}

/// <summary>
/// The store of descriptors that outlive this process, in the hands of its service manager or supervisor (FDSTORE= of sd_notify(3)). What was
/// kept comes back to the next process under its name. Thread-safe.
/// </summary>
/// <remarks>
/// systemd drops without a word what does not fit. So this class counts, and <see cref="Confirm"/> waits until the manager has dealt with all
/// that was sent. A supervisor of this project says at that moment what it refused.
/// </remarks>
public sealed class DescriptorStore : IDisposable
{
    /// <summary>How long <see cref="Confirm"/> waits for the manager.</summary>
    public const int DefaultConfirmMs = 10_000;

    private readonly Lock _lock = new();
    private readonly NotifySocket _manager;
    private readonly int _capacity;
    private readonly int _confirmMs;
    private readonly int _sendMs;
    private readonly HashSet<string> _kept = [];
    private readonly Dictionary<string, FileDescriptor> _given = [];
    private readonly Dictionary<string, string> _refused = [];

    /// <summary>What the manager has to remove, and did not take yet.</summary>
    private readonly Queue<string> _removals = [];

    /// <param name="manager">The way to the manager; stays the caller's.</param>
    /// <param name="capacity">Descriptors that the manager keeps.</param>
    /// <param name="confirmMs">Longest wait for the manager's answer.</param>
    /// <param name="sendMs">Longest wait for room in the manager's queue.</param>
    public DescriptorStore(NotifySocket manager, int capacity, int confirmMs = DefaultConfirmMs, int sendMs = NotifySocket.SendMs)
    {
        _manager = manager;
        _capacity = capacity;
        _confirmMs = confirmMs;
        _sendMs = sendMs;
    }

    /// <summary>
    /// The store of this process, with what it kept of the process before; null if there is none. Reads FDSTORE and removes it from the
    /// environment.
    /// </summary>
    /// <param name="manager">The way to the manager; null if there is none.</param>
    /// <param name="descriptors">What this process was started with. Those with names of the store are taken.</param>
    /// <param name="others">The rest.</param>
    /// <param name="log">Gets one line for each that is not what its name says; it is closed and removed from the store.</param>
    /// <exception cref="CbdException">FDSTORE is no number.</exception>
    public static DescriptorStore? TryFromEnvironment(NotifySocket? manager, IReadOnlyList<GivenDescriptor> descriptors, out IReadOnlyList<GivenDescriptor> others, Action<string> log)
    {
        others = descriptors;
        string? text = GivenDescriptors.TakeVariable("FDSTORE");
        if (text is null)
            return null;
        if (manager is null)
        {
            log("there is a descriptor store, and the service manager or supervisor that has it cannot be reached at NOTIFY_SOCKET: nothing is kept");
            return null;
        }

        if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int capacity))
            throw new CbdException(CbdErrorKind.Invalid, $"FDSTORE is '{text}' and not a number: the service manager sets it to what FileDescriptorStoreMax= of the unit says");
        if (capacity == 0)
            return null;
        others = [.. descriptors.Where(given => StoredName.KindOf(given.Name) is null)];
        var store = new DescriptorStore(manager, capacity);
        foreach (GivenDescriptor given in descriptors.Except(others))
            store.TakeBack(given, log);
        return store;
    }

    /// <summary>The manager has ended: nothing is kept any more.</summary>
    public bool IsGone => _manager.IsGone;

    /// <summary>Names of what came back and was not taken yet.</summary>
    public IReadOnlyList<string> Given
    {
        get
        {
            lock (_lock)
                return [.. _given.Keys];
        }
    }

    /// <summary>
    /// Hands out what came back under that name, once; it stays in the store. Null if there is nothing. It was checked to be of the kind that
    /// the name says, by nothing that a file system has to answer.
    /// </summary>
    public FileDescriptor? TryTake(string name)
    {
        lock (_lock)
            return _given.Remove(name, out FileDescriptor? descriptor) ? descriptor : null;
    }

    /// <summary>
    /// Sends a descriptor to the store. It is there for sure after <see cref="Confirm"/>, and not before.
    /// </summary>
    /// <param name="name">See <see cref="StoredName"/>. Nothing else in the store may have it.</param>
    /// <param name="descriptor">A socket, a channel of /dev/fuse or a file in memory, as the name says; stays the caller's.</param>
    /// <exception cref="CbdException">The store is full or gone, or the name or the descriptor does not belong in it; nothing was changed.</exception>
    public void Keep(string name, FileDescriptor descriptor)
    {
        Check(name, descriptor);
        lock (_lock)
        {
            if (_kept.Contains(name))
                throw new CbdException(CbdErrorKind.Busy, $"the descriptor store has a descriptor '{name}' already: remove that one first");
            if (_kept.Count >= _capacity)
                throw Full(name, $"it has {_kept.Count} descriptors");
            Send($"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor);
            _kept.Add(name);
            _refused.Remove(name);
        }
    }

    /// <summary>Waits until the manager has dealt with all that was sent so far.</summary>
    /// <param name="names">Of what was sent and has to be there.</param>
    /// <exception cref="CbdException">The manager refused one of them (that one is not in the store), did not answer in time, or is gone.</exception>
    public void Confirm(params IReadOnlyCollection<string> names)
    {
        foreach ((string name, string why) in ConfirmEach(names))
            throw new CbdException(CbdErrorKind.Exhausted, $"the descriptor store refused '{name}': {why}");
    }

    /// <summary>The same, where some may be missing: those that were refused, and why.</summary>
    /// <param name="names">Of what was sent.</param>
    /// <exception cref="CbdException">The manager did not answer in time, or is gone.</exception>
    public IReadOnlyList<(string Name, string Why)> ConfirmEach(IReadOnlyCollection<string> names)
    {
        lock (_lock)
        {
            (FileDescriptor reader, FileDescriptor writer) = PipeEnds.Create();
            using (reader)
            {
                using (writer)
                    Send("BARRIER=1", writer);
                ReadRefusals(reader);
            }

            List<(string Name, string Why)> refused = [];
            foreach (string name in names)
            {
                if (_refused.Remove(name, out string? why))
                    refused.Add((name, why));
            }

            return refused;
        }
    }

    /// <summary>
    /// Takes what has that name out of the store. Nothing if there is none, or the manager is gone. If its queue is full for long, it is told before
    /// anything else is.
    /// </summary>
    public void Remove(string name)
    {
        lock (_lock)
        {
            _kept.Remove(name);
            _given.Remove(name, out FileDescriptor? descriptor);
            descriptor?.Dispose();
            _removals.Enqueue(name);
            _ = SendRemovals();
        }
    }

    /// <summary>Closes what was not taken; the store keeps it.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (FileDescriptor descriptor in _given.Values)
                descriptor.Dispose();
            _given.Clear();
        }
    }

    private static void Check(string name, FileDescriptor descriptor)
    {
        if (StoredName.KindOf(name) is not { } wanted)
            throw new CbdException(CbdErrorKind.Invalid, $"'{name}' is no name of a descriptor in a store");
        DescriptorKind kind = DescriptorKinds.Of(descriptor);
        if (kind != wanted)
            throw new CbdException(CbdErrorKind.Invalid, $"descriptor '{name}' is {StoredName.Describe(kind)} and not {StoredName.Describe(wanted)}, and does not go to the descriptor store");
    }

    private static CbdException Full(string name, string how) =>
        new(CbdErrorKind.Exhausted, $"the descriptor store is full ({how}), so '{name}' cannot be kept: stop a device, or raise the limit (LimitNOFILE= for cbdd --supervise, FileDescriptorStoreMax= for systemd)");

    private void TakeBack(GivenDescriptor given, Action<string> log)
    {
        DescriptorKind wanted = StoredName.KindOf(given.Name)!.Value;
        FileDescriptor? descriptor = GivenDescriptors.TryOwn(given);
        if (descriptor is null)
        {
            log($"descriptor {given.Number} ('{given.Name}') of the descriptor store is not open: it is left out");
            return;
        }

        DescriptorKind kind = DescriptorKinds.Of(descriptor);
        if (kind == wanted && _given.TryAdd(given.Name, descriptor))
        {
            _kept.Add(given.Name);
            return;
        }

        descriptor.Dispose();
        // Of two with one name nothing tells which is the right one; a remove takes both.
        log(kind != wanted
            ? $"descriptor '{given.Name}' of the descriptor store is {StoredName.Describe(kind)} and not {StoredName.Describe(wanted)}: it is closed"
            : $"the descriptor store has two descriptors '{given.Name}': both are closed");
        Remove(given.Name);
    }

    /// <summary>Returns 0 or a negative errno: the rest has to be sent again.</summary>
    private int SendRemovals()
    {
        while (_removals.TryPeek(out string? name))
        {
            int error = _manager.TrySend($"FDSTOREREMOVE=1\nFDNAME={name}", null, _sendMs);
            if (error != 0 && !_manager.IsGone)
                return error;
            _removals.Dequeue();
        }

        return 0;
    }

    private void Send(string text, FileDescriptor descriptor)
    {
        int error = SendRemovals();
        if (error == 0)
            error = _manager.IsGone ? -Errno.ECONNREFUSED : _manager.TrySend(text, descriptor, _sendMs);
        if (error == 0)
            return;
        if (_manager.IsGone)
            throw new StoreGoneException();
        throw error == -Errno.ETIMEDOUT
            ? new CbdException(CbdErrorKind.TimedOut, $"the descriptor store took nothing within {_sendMs / 1000.0:0.###} s: see whether the supervisor or service manager of this process is stopped")
            : new SystemCallException("sendmsg", -error, "descriptor store");
    }

    /// <summary>Reads until the manager has closed the other end: what it writes before is what it refused, a name and a reason a line.</summary>
    private void ReadRefusals(FileDescriptor reader)
    {
        long end = KernelClock.MonotonicNs + (_confirmMs * 1_000_000L);
        var text = new List<byte>();
        Span<byte> buffer = stackalloc byte[1024];
        while (true)
        {
            long left = (end - KernelClock.MonotonicNs) / 1000;
            if (left <= 0)
                throw new CbdException(CbdErrorKind.TimedOut, $"the descriptor store did not answer within {_confirmMs / 1000.0:0.###} s: see whether the supervisor or service manager of this process is stopped");
            if (!reader.WaitReadable(left))
                continue;
            int count = reader.Read(buffer);
            if (count == 0)
                break;
            if (text.Count < PipeEnds.MostBytes)
                text.AddRange(buffer[..count]);
        }

        foreach (string line in Encoding.UTF8.GetString([.. text]).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            int colon = line.IndexOf(':', StringComparison.Ordinal);
            string name = colon < 0 ? line : line[..colon];
            if (!_kept.Remove(name))
                continue;
            _refused[name] = colon < 0 ? "no reason is given" : line[(colon + 1)..].Trim();
        }
    }
}
