using System.Text;
using Cbd.Blocks;
using Cbd.Memory.Fuse;

namespace Cbd.Exports.Fuse;

/// <summary>What the pumps of one file system share: the device that is its one file. Thread-safe.</summary>
internal sealed class FuseFile
{
    /// <summary>Longest payload of a request, bytes: what the kernel gives at most without being configured.</summary>
    internal const int LargestTransferBytes = 1 << 20;

    private const int PageBytes = 4096;

    private readonly Action _wakePumps;
    private volatile bool _hasFailed;
    private volatile bool _isExpectedToEnd;
    private int _ended;

    /// <param name="device">What is served.</param>
    /// <param name="name">Name of the file.</param>
    /// <param name="log">Gets messages for the operator.</param>
    /// <param name="wakePumps">Makes all pumps look at <see cref="HasFailed"/>.</param>
    internal FuseFile(IBlockDevice device, string name, Action<string> log, Action wakePumps)
    {
        Device = device;
        Name = Encoding.UTF8.GetBytes(name);
        Log = log;
        _wakePumps = wakePumps;
        MaxTransferBytes = Math.Clamp(device.Info.MaxTransferBytes / PageBytes * PageBytes, PageBytes, LargestTransferBytes);
    }

    internal IBlockDevice Device { get; }

    internal byte[] Name { get; }

    internal Action<string> Log { get; }

    internal int MaxTransferBytes { get; }

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
