using System.Text;
using Cbd.Blocks;
using Cbd.Host.Attachments;
using Cbd.Memory.Fuse;

namespace Cbd.Exports.Fuse;

/// <summary>What the pumps of one file system share: the device that is its one file. Thread-safe.</summary>
internal sealed class FuseFile
{
    /// <summary>Longest payload of a request, bytes: what the kernel gives at most without being configured.</summary>
    internal const int LargestTransferBytes = 1 << 20;

    private const int PageBytes = 4096;

    private readonly Action _wakePumps;
    private readonly Func<bool> _endConnection;
    private volatile bool _hasFailed;
    private volatile bool _isExpectedToEnd;
    private volatile bool _isParked;
    private volatile bool _mayRead = true;
    private int _unfinishedQueues;
    private int _ended;

    /// <param name="device">What is served.</param>
    /// <param name="name">Name of the file.</param>
    /// <param name="maxTransferBytes">Longest payload, as agreed upon with the kernel: <see cref="MaxTransferOf"/> of a new file system.</param>
    /// <param name="life">What outlives this process; null: nothing does.</param>
    /// <param name="log">Gets messages for the operator.</param>
    /// <param name="wakePumps">Makes all pumps look at what has changed here.</param>
    /// <param name="endConnection">Ends the connection, whoever has its channels open; false if that cannot be done. Must not throw.</param>
    internal FuseFile(
        IBlockDevice device, string name, int maxTransferBytes, AttachmentLife? life, Action<string> log, Action wakePumps, Func<bool> endConnection)
    {
        Device = device;
        Name = Encoding.UTF8.GetBytes(name);
        Log = log;
        Life = life;
        _wakePumps = wakePumps;
        _endConnection = endConnection;
        MaxTransferBytes = maxTransferBytes;
    }

    /// <summary>What a new file system agrees upon with the kernel.</summary>
    internal static int MaxTransferOf(BlockDeviceInfo info) =>
        Math.Clamp(info.MaxTransferBytes / PageBytes * PageBytes, PageBytes, LargestTransferBytes);

    internal IBlockDevice Device { get; }

    internal byte[] Name { get; }

    internal Action<string> Log { get; }

    internal int MaxTransferBytes { get; }

    internal AttachmentLife? Life { get; }

    /// <summary>New requests may be read: what a process before this one left is done, in all queues.</summary>
    internal bool MayRead => _mayRead && !_hasFailed;

    /// <summary>The pumps end and leave everything to a successor.</summary>
    internal bool IsParked => _isParked;

    /// <summary>So many queues have requests of a process before this one. Before the pumps start.</summary>
    internal void AwaitQueues(int count)
    {
        _unfinishedQueues = count;
        _mayRead = count == 0;
    }

    /// <summary>One of these queues has no such request any more. Any thread.</summary>
    internal void FinishQueue()
    {
        if (Interlocked.Decrement(ref _unfinishedQueues) != 0)
            return;
        _mayRead = true;
        _wakePumps();
    }

    /// <summary>Ends the pumps; what is not answered stays so.</summary>
    internal void Park()
    {
        _isParked = true;
        _wakePumps();
    }

    /// <summary>The kernel answers everything with errors from here on. False if only closing all channels does that.</summary>
    internal bool TryEndConnection() => _endConnection();

    /// <summary>The kernel's version of the protocol was too old.</summary>
    internal bool IsTooOld { get; private set; }

    /// <summary>The end of the file system is nothing to tell anybody of.</summary>
    internal void ExpectEnd() => _isExpectedToEnd = true;

    /// <summary>The pumps end, and with them the file system: everybody who waits for it gets an error.</summary>
    internal bool HasFailed => _hasFailed;

    internal void Fail()
    {
        _hasFailed = true;
        _wakePumps();
    }

    /// <summary>Whether the kernel speaks this protocol, with what is needed of it.</summary>
    internal bool Agree(in FuseProtocol.InitRequest request)
    {
        bool agrees = request.Major == FuseProtocol.Version && request.Minor >= FuseProtocol.MinorVersion;
        IsTooOld = !agrees;
        return agrees;
    }

    /// <summary>Called when the file may not be the loop device's any more; must not block.</summary>
    internal Action? LookAgain { get; set; }

    /// <summary>The kernel released an open file: the loop device's, if another program detached it.</summary>
    internal void NoteRelease()
    {
        if (!_isExpectedToEnd)
            LookAgain?.Invoke();
    }

    /// <summary>A pump found the file system at its end.</summary>
    internal void Ended()
    {
        if (!_isExpectedToEnd && Interlocked.Exchange(ref _ended, 1) == 0)
            Log("the kernel has ended the file system below the loop device (aborted by hand?): its users get errors; stop the device and start it again");
    }
}
