using System.Globalization;
using Cbd.Blocks;
using Cbd.Exports.InFlight;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Cbd.Memory;
using Cbd.Memory.Fuse;

namespace Cbd.Exports.Fuse;

/// <summary>
/// What a process before this one left of an attachment, checked: the channels and records of all queues, which belong together, and the
/// loop device. Nothing is changed, and no message is read, while it is checked.
/// </summary>
internal sealed class FuseAdoption : IDisposable
{
    private readonly List<FuseChannel> _channels = [];
    private readonly List<InFlightRecord> _records = [];

    private FuseAdoption()
    {
    }

    internal IReadOnlyList<FuseChannel> Channels => _channels;

    internal IReadOnlyList<InFlightRecord> Records => _records;

    /// <summary>Of any queue: they agree.</summary>
    internal InFlightHeader Header => _records[0].Header;

    internal string FileName { get; private set; } = "";

    /// <summary>The loop device.</summary>
    internal string Node { get; private set; } = "";

    /// <summary>
    /// Opens all that was given. Throws <see cref="CbdException"/> and says what does not fit; what was given stays as it is.
    /// </summary>
    internal static FuseAdoption Open(AttachmentLife life, string name, BlockDeviceInfo device)
    {
        var adoption = new FuseAdoption();
        try
        {
            adoption.OpenQueues(life);
            adoption.Check(life, name);
            adoption.FindNode();
            adoption.CheckDevice(device);
            return adoption;
        }
        catch
        {
            adoption.Dispose();
            throw;
        }
    }

    /// <summary>Closes what it opened.</summary>
    public void Dispose()
    {
        foreach (FuseChannel channel in _channels)
            channel.Dispose();
        foreach (InFlightRecord record in _records)
            record.Dispose();
    }

    private void OpenQueues(AttachmentLife life)
    {
        int queues = life.Given.Count / 2;
        for (int queue = 0; queue < queues; queue++)
        {
            string recordName = life.RecordName(queue);
            SealedMemory memory = Opened(life, recordName, static (descriptor, name) => SealedMemory.Open(
                descriptor, name, InFlightLayout.TotalBytes(InFlightLayout.PayloadUnitBytes), InFlightLayout.TotalBytes(InFlightLayout.MaxPayloadBytes)));
            try
            {
                _records.Add(InFlightRecord.Open(memory));
            }
            catch (CbdException e)
            {
                memory.Dispose();
                throw new CbdException(e.Kind, $"{recordName}: {e.Message}", e);
            }

            _channels.Add(Opened(life, life.ChannelName(queue), FuseChannel.Adopt));
        }

        string[] expected = [.. Enumerable.Range(0, queues).SelectMany(queue => new[] { life.ChannelName(queue), life.RecordName(queue) })];
        if (life.Given.FirstOrDefault(given => !expected.Contains(given.Name)) is { Name: not null } other)
            throw Succession.Refused($"the descriptor '{other.Name}' was kept, and a channel and a record of each queue from 0 on are expected");
    }

    private void Check(AttachmentLife life, string name)
    {
        for (int queue = 0; queue < _records.Count; queue++)
        {
            InFlightHeader header = _records[queue].Header;
            string record = life.RecordName(queue);
            if (header.Life != life.Id || header.Host != life.Host)
                throw Succession.Refused($"the record '{record}' is of life {AttachmentLife.TextOf(header.Life)} of host {header.Host:D}, and the device's is {life.Text} of {life.Host:D}");
            if (header.Queue != queue || header.QueueCount != _records.Count)
                throw Succession.Refused(string.Create(CultureInfo.InvariantCulture, $"the record '{record}' is of queue {header.Queue} of {header.QueueCount}, and {queue} of {_records.Count} were kept"));
            InFlightHeader first = Header;
            if (header.MaxTransferBytes != first.MaxTransferBytes || header.LogicalBlockBytes != first.LogicalBlockBytes || header.ReadOnly != first.ReadOnly ||
                header.Connection != first.Connection || InFlightCheck.NameOf(header) != InFlightCheck.NameOf(first))
                throw Succession.Refused($"the records '{record}' and '{life.RecordName(0)}' do not agree about what they are of");
        }

        FileName = InFlightCheck.NameOf(Header);
        if (FileName != LoopOwner.Self(name, life).FileName)
            throw Succession.Refused($"the records are of the file '{FileName}', and the device's is '{LoopOwner.Self(name, life).FileName}'");
    }

    private void FindNode()
    {
        Node = NodeOf(FileName) ?? throw Succession.Refused($"no loop device has the file '{FileName}' any more: another program detached it (losetup -d), and its users got errors");
    }

    /// <summary>What was agreed upon with the kernel stays; the device must be able to do that.</summary>
    private void CheckDevice(BlockDeviceInfo device)
    {
        InFlightHeader header = Header;
        if (device.LogicalBlockBytes != header.LogicalBlockBytes)
            throw Succession.Refused($"its blocks have {device.LogicalBlockBytes} bytes now, and the kernel knows {header.LogicalBlockBytes}");
        if (device.ReadOnly != (header.ReadOnly != 0))
            throw Succession.Refused(device.ReadOnly ? "it is read-only now, and the kernel writes to it" : "it can be written now, and the kernel knows it as read-only");
        if (device.MaxTransferBytes < header.MaxTransferBytes)
            throw Succession.Refused($"a request can have {device.MaxTransferBytes} bytes now, and the kernel sends up to {header.MaxTransferBytes}");
        long sizeBytes = SizeOf(Node);
        if (device.SizeBytes < sizeBytes)
            throw Succession.Refused($"it has {device.SizeBytes} bytes now, and {Node} has {sizeBytes}: a device in use does not shrink");
    }

    /// <summary>The number of the connection, from the first record that tells it for sure; null if none does. Closes and changes nothing.</summary>
    internal static uint? TryFindConnection(AttachmentLife life)
    {
        byte[] page = new byte[InFlightLayout.HeaderBytes];
        foreach (KeptDescriptor given in life.Given)
        {
            if (SealedMemory.TryReadStart(given.Descriptor, page) && InFlightCheck.TryReadConnection(page, life.Id, out uint connection))
                return connection;
        }

        return null;
    }

    /// <summary>The loop device on a file of that name; null if there is none.</summary>
    internal static string? NodeOf(string fileName) => KernelFiles.Entries("/sys/block")
        .Where(device => device.StartsWith("loop", StringComparison.Ordinal))
        .Select(device => $"/dev/{device}")
        .FirstOrDefault(node => LoopDevice.FileOf(node) == "/" + fileName);

    /// <summary>Size of a loop device as its users see it, bytes.</summary>
    internal static long SizeOf(string node) =>
        long.TryParse(KernelFiles.Line($"/sys/block/{Path.GetFileName(node)}/size"), NumberStyles.None, CultureInfo.InvariantCulture, out long sectors)
            ? sectors * 512
            : throw Succession.Refused($"the size of {node} cannot be read in /sys");

    /// <summary>A duplicate of what was given, which stays for another try, as what it is.</summary>
    private static T Opened<T>(AttachmentLife life, string name, Func<FileDescriptor, string, T> open)
    {
        FileDescriptor given = life.Given.FirstOrDefault(given => given.Name == name).Descriptor ?? throw Succession.Refused($"the descriptor '{name}' was not kept, and others of this life were");
        FileDescriptor own = given.Duplicate(name);
        try
        {
            return open(own, name);
        }
        catch
        {
            own.Dispose();
            throw;
        }
    }
}
