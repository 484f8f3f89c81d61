using System.Globalization;
using Cbd.Memory;
using Cbd.Memory.Store;
using Cbd.Protocol.Format;
using Cbd.Protocol.Records;

namespace Cbd.Host.Attachments;

/// <summary>A device of this machine's kernel that outlives this process: its attachment and its record.</summary>
internal sealed class KeptLife
{
    private readonly SealedMemory _memory;

    public KeptLife(AttachmentLife attachment, SealedMemory memory, DeviceRecord record, bool isGiven)
    {
        Attachment = attachment;
        _memory = memory;
        Record = record;
        IsGiven = isGiven;
    }

    public AttachmentLife Attachment { get; }

    public DeviceRecord Record { get; }

    /// <summary>What gives it to the kernel, as <see cref="AttachChoice"/> has it.</summary>
    public string Kind => Record.Body.Kind switch
    {
        DeviceRecordKind.Ublk => AttachChoice.Ublk,
        DeviceRecordKind.KernelNbd => AttachChoice.KernelNbd,
        _ => AttachChoice.Fuse,
    };

    /// <summary>A process before this one began it, and it goes on.</summary>
    public bool IsGiven { get; }

    /// <summary>It served, and nothing of it was given up yet.</summary>
    public bool MayGoOn => Record.Body.State == DeviceRecordState.Serving && Attachment.GoesOn;

    /// <summary>The record, for the store.</summary>
    internal FileDescriptor Descriptor => _memory.Descriptor;

    /// <summary>
    /// Closes the record's descriptor. Its memory goes when nobody has it any more: the device may still close, and counts there.
    /// </summary>
    internal void Dispose() => _memory.Descriptor.Dispose();
}

/// <summary>The start of a device that is kept: unless it is done, what is kept is given back at the end.</summary>
internal sealed class KeptStart(KeptLives? lives, KeptLife? life) : IDisposable
{
    private bool _isDone;

    /// <summary>What is kept of it; null: nothing.</summary>
    public KeptLife? Life { get; set; } = life;

    public T Done<T>(T answer)
    {
        _isDone = true;
        return answer;
    }

    public void Dispose()
    {
        if (!_isDone && Life is not null)
            lives!.GiveBack(Life);
    }
}

/// <summary>
/// The devices of this machine's kernel that outlive this process, by the names of the devices: those that a process before this one left, and
/// those that begin here. Without a store there are none. Thread-safe.
/// </summary>
internal sealed class KeptLives : IDisposable
{
    private const string DevicePrefix = "device-";
    private const int OpenAttempts = 20, OpenPauseMs = 100;
    private static readonly string[] s_queuePrefixes = ["fuse-", "inflight-"];

    private readonly Lock _lock = new();
    private readonly DescriptorStore? _store;
    private readonly Guid _host;
    private readonly Action<string> _log;
    private readonly Dictionary<string, KeptLife> _given = [];
    private readonly Dictionary<ulong, KeptLife> _own = [];

    /// <summary>Takes what the process before left out of the store's hands. What cannot be gone on with ends: its users get I/O errors.</summary>
    /// <param name="store">The store; null if there is none.</param>
    /// <param name="host">Host of the state directory.</param>
    /// <param name="log">Gets a line for each that cannot be gone on with.</param>
    public KeptLives(DescriptorStore? store, Guid host, Action<string> log)
    {
        _store = store;
        _host = host;
        _log = log;
        Attachments = new AttachmentLives(host);
        foreach (IGrouping<ulong, string> life in (store?.Given ?? []).Select(name => (Name: name, Life: LifeOf(name))).Where(n => n.Life != 0).GroupBy(n => n.Life, n => n.Name))
            TakeBack(life.Key, [.. life]);
    }

    /// <summary>The lives that this daemon serves, or is to serve.</summary>
    public AttachmentLives Attachments { get; }

    /// <summary>
    /// What a process before this one left under that name, if it served. A start or a stop that was cut by its death ends here. Null: the device
    /// begins anew.
    /// </summary>
    public KeptLife? TryTake(string? name)
    {
        KeptLife? life;
        lock (_lock)
        {
            if (name is null || !_given.Remove(name, out life))
                return null;
        }

        if (life.MayGoOn)
            return life;
        _log($"device {name} was {(life.Record.Body.State == DeviceRecordState.Starting ? "starting" : "stopping")} when its daemon died: what is left of it in the kernel ends");
        End(life);
        return null;
    }

    /// <summary>The devices that a process before this one served and that wait for this one.</summary>
    public IReadOnlyList<string> Waiting
    {
        get
        {
            lock (_lock)
                return [.. _given.Where(given => given.Value.MayGoOn).Select(given => given.Key)];
        }
    }

    /// <summary>A process before this one began a device of that name, which goes on, or may.</summary>
    public bool HasGiven(string name)
    {
        lock (_lock)
            return _own.Values.Any(life => life.IsGiven && life.Record.Body.Name == name);
    }

    /// <summary>Such a device waits under that name.</summary>
    public bool IsWaiting(string name)
    {
        lock (_lock)
            return _given.TryGetValue(name, out KeptLife? life) && life.MayGoOn;
    }

    /// <summary>Begins a device; null if nothing is kept.</summary>
    /// <param name="name">Its name; null if it gets one later.</param>
    /// <param name="region">The region that it belongs to.</param>
    /// <param name="backend">Id of its backend.</param>
    /// <param name="queues">Its queues.</param>
    /// <param name="kind">What gives it to the kernel.</param>
    /// <exception cref="CbdException">There is no memory for its record.</exception>
    public KeptLife? Begin(string? name, Guid region, int backend, int queues, string kind = AttachChoice.Fuse)
    {
        if (_store is null || _store.IsGone)
            return null;
        ulong id;
        do
            id = BitConverter.ToUInt64(Guid.NewGuid().ToByteArray().AsSpan(8));
        while (id == 0);
        string text = DevicePrefix + AttachmentLife.TextOf(id);
        var memory = SealedMemory.Create(text, DeviceRecord.SizeFor(queues));
        try
        {
            var record = DeviceRecord.Create(memory.Buffer, new DeviceRecordBody { Life = id, RegionId = region, HostUuid = _host, BackendId = backend, Queues = queues, Name = name ?? "", Kind = KindOf(kind) });
            var life = new KeptLife(NewAttachment(id, [], record, isGiven: false), memory, record, isGiven: false);
            lock (_lock)
                _own.Add(id, life);
            Attachments.Add(id);
            return life;
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    /// <summary>A start came to nothing. One that may be tried again goes on to wait for its daemon; what was new is over.</summary>
    public void GiveBack(KeptLife life)
    {
        if (!life.IsGiven || !Attachments.Has(life.Attachment.Id))
        {
            End(life);
            return;
        }

        lock (_lock)
            _given[life.Record.Body.Name] = life;
    }

    /// <summary>Ends what is not wanted: its users get I/O errors. Returns whether there was any.</summary>
    public bool EndUnwanted(Predicate<string> isWanted)
    {
        List<KeptLife> unwanted;
        lock (_lock)
        {
            unwanted = [.. _given.Where(given => !isWanted(given.Key)).Select(given => given.Value)];
            foreach (KeptLife life in unwanted)
                _given.Remove(life.Record.Body.Name);
        }

        foreach (KeptLife life in unwanted)
        {
            _log($"device {life.Record.Body.Name}, which a daemon before this one served, is not wanted any more: it ends, and who still uses it gets I/O errors");
            End(life);
        }

        return unwanted.Count > 0;
    }

    /// <summary>Closes what was not taken; the store keeps it.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (KeptLife life in _given.Values)
            {
                foreach (KeptDescriptor given in life.Attachment.Given)
                    given.Descriptor.Dispose();
                life.Dispose();
            }

            _given.Clear();
        }
    }

    /// <summary>The life in such a name of a store; 0 if it is of something else.</summary>
    internal static ulong LifeOf(string name)
    {
        string? prefix = s_queuePrefixes.Append(DevicePrefix).FirstOrDefault(p => name.StartsWith(p, StringComparison.Ordinal));
        return prefix is not null && name.Length >= prefix.Length + 16 && ulong.TryParse(name.AsSpan(prefix.Length, 16), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong life)
            ? life
            : 0;
    }

    private void TakeBack(ulong id, IReadOnlyList<string> names)
    {
        string deviceName = DevicePrefix + AttachmentLife.TextOf(id);
        List<KeptDescriptor> queues = [.. names.Where(name => name != deviceName)
            .Select(name => (Name: name, Descriptor: _store!.TryTake(name))).Where(n => n.Descriptor is not null).Select(n => new KeptDescriptor(n.Name, n.Descriptor!))];
        SealedMemory? memory = null;
        FileDescriptor? descriptor = _store!.TryTake(deviceName);
        try
        {
            if (descriptor is null)
                throw new CbdException(CbdErrorKind.Invalid, $"the descriptor store has '{names[0]}' and not '{deviceName}'");
            memory = OpenRecord(descriptor, deviceName);
            var record = DeviceRecord.Open(memory.Buffer);
            // A daemon may have died between the end of one and the start of the next.
            if (_given.TryGetValue(record.Body.Name, out KeptLife? other) && !other.MayGoOn && _given.Remove(record.Body.Name))
                End(other);
            if (record.Body.Life != id || record.Body.HostUuid != _host || record.Body.Name.Length == 0 || _given.ContainsKey(record.Body.Name))
            {
                record.Dispose();
                throw new CbdException(CbdErrorKind.Invalid, $"the record '{deviceName}' is of device '{record.Body.Name}', life {AttachmentLife.TextOf(record.Body.Life)}, of host {record.Body.HostUuid:D}, which is not what it is kept as");
            }

            _given.Add(record.Body.Name, new KeptLife(NewAttachment(id, queues, record, isGiven: true), memory, record, isGiven: true));
            _own.Add(id, _given[record.Body.Name]);
            Attachments.Add(id);
        }
        catch (CbdException e)
        {
            _log($"a device that a daemon before this one served cannot be gone on with, and its users get I/O errors: {e.Message}");
            if (memory is not null)
                memory.Dispose();
            else
                descriptor?.Dispose();
            foreach (KeptDescriptor queue in queues)
                queue.Descriptor.Dispose();
            foreach (string name in names)
                _store.Remove(name);
        }
    }

    /// <summary>What cannot be had for a moment is waited for: without its record a device ends.</summary>
    private static SealedMemory OpenRecord(FileDescriptor descriptor, string name)
    {
        for (int left = OpenAttempts; ; left--)
        {
            try
            {
                return SealedMemory.Open(descriptor, name, DeviceRecord.SizeFor(1), DeviceRecord.SizeFor(BlkdevBody.MaxQueues));
            }
            catch (CbdException e) when (left > 1 && e.Kind is not (CbdErrorKind.Invalid or CbdErrorKind.Corrupt))
            {
                Thread.Sleep(OpenPauseMs);
            }
        }
    }

    private static DeviceRecordKind KindOf(string kind) => kind switch
    {
        AttachChoice.Ublk => DeviceRecordKind.Ublk,
        AttachChoice.KernelNbd => DeviceRecordKind.KernelNbd,
        AttachChoice.Fuse => DeviceRecordKind.Fuse,
        _ => throw new ArgumentException($"there is no kind '{kind}'", nameof(kind)),
    };

    private AttachmentLife NewAttachment(ulong id, IReadOnlyList<KeptDescriptor> given, DeviceRecord record, bool isGiven) => new()
    {
        IsGiven = isGiven,
        Number = record.Body.Number,
        StoreNumber = number => record.Change(body => body with { Number = number }),
        Host = _host,
        Id = id,
        Given = given,
        Keep = descriptors => Keep(id, descriptors),
        Forget = names => Forget(id, names),
    };

    /// <summary>All of them, or none.</summary>
    private void Keep(ulong id, IReadOnlyList<KeptDescriptor> descriptors)
    {
        KeptLife life;
        lock (_lock)
            life = _own[id];
        List<KeptDescriptor> all = [new(DevicePrefix + life.Attachment.Text, life.Descriptor), .. descriptors];
        try
        {
            foreach (KeptDescriptor descriptor in all)
                _store!.Keep(descriptor.Name, descriptor.Descriptor);
            _store!.Confirm([.. all.Select(descriptor => descriptor.Name)]);
        }
        catch
        {
            foreach (KeptDescriptor descriptor in all)
                _store!.Remove(descriptor.Name);
            throw;
        }
    }

    private void Forget(ulong id, IReadOnlyList<string> names)
    {
        foreach (string name in names)
            _store!.Remove(name);
        _store!.Remove(DevicePrefix + AttachmentLife.TextOf(id));
        KeptLife? life;
        lock (_lock)
            _own.Remove(id, out life);
        life?.Dispose();
    }

    /// <summary>With the last duplicate of its channels the kernel ends what it has of the device. The device itself is not touched.</summary>
    private void End(KeptLife life)
    {
        // A process that dies in here leaves nothing that could be gone on with.
        life.Record.Change(body => body with { State = DeviceRecordState.Stopping });
        foreach (KeptDescriptor given in life.Attachment.Given)
            given.Descriptor.Dispose();
        Forget(life.Attachment.Id, [.. life.Attachment.Given.Select(given => given.Name)]);
        Attachments.Remove(life.Attachment.Id);
        life.Dispose();
    }
}
