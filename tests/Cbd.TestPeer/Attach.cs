using System.Net.Sockets;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Exports.KernelNbd;
using Cbd.Exports.Ublk;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;

namespace Cbd.TestPeer;

/// <summary>
/// <c>attach KIND DISK SIZE QUEUES</c>: gives the first SIZE bytes of a disk to this kernel and prints the node. Then
/// one line for each line of standard input: <c>cut N</c> shuts the Nth of its sockets down, as a
/// failure would; <c>hold</c> keeps the ends of requests back, as a backend that is away does, and <c>release</c> gives
/// them; <c>stop</c>, as the end of the input. Answers "ok" or the error.
/// </summary>
internal static class Attach
{
    internal static int Run(string[] arguments)
    {
        IAttachKind kind = arguments[0] == "ublk" ? new UblkAttachKind() : new KernelNbdAttachKind();
        using Disk disk = Disk.Open(new DiskOptions { Path = arguments[1] });
        var device = new Part(disk, long.Parse(arguments[2]));
        new KernelExports(new AttachPlaces(), kind).CleanUp(Console.Error.WriteLine);
        using IKernelAttachment attachment = kind.Open(
            new KernelExportOptions { Name = "peer", Region = Guid.Empty, Log = Console.Error.WriteLine });
        attachment.Serve(device, int.Parse(arguments[3]), PollMode.Sleep);
        Console.WriteLine(attachment.Node);
        while (Console.ReadLine() is { } line && line != "stop")
        {
            try
            {
                string[] words = line.Split(' ');
                if (words[0] == "cut")
                {
                    Cut(int.Parse(words[1]));
                }
                else
                {
                    device.IsHeld = words[0] == "hold";
                }

                Console.WriteLine("ok");
            }
            catch (CbdException error)
            {
                Console.WriteLine(error.Message);
            }
        }

        attachment.Stop(force: false);
        Console.WriteLine("stopped");
        return 0;
    }

    /// <summary>Shuts down one of this process's Unix sockets, in the order of their numbers.</summary>
    private static void Cut(int index)
    {
        string[] unix = [.. from line in File.ReadLines("/proc/net/unix").Skip(1) select line.Split(' ', StringSplitOptions.RemoveEmptyEntries)[6]];
        int[] sockets = [.. from path in Directory.EnumerateFileSystemEntries("/proc/self/fd")
                            where new FileInfo(path).LinkTarget is { } target && unix.Any(inode => target == $"socket:[{inode}]")
                            let number = int.Parse(Path.GetFileName(path))
                            orderby number
                            select number];
        using var socket = new Socket(new SafeSocketHandle(sockets[index], ownsHandle: false));
        try
        {
            socket.Shutdown(SocketShutdown.Both);
        }
        catch (SocketException)
        {
            // It is shut down; the pump closes it at once, and .NET looks at it once more.
        }
    }

    /// <summary>The first bytes of a disk, which may be held up.</summary>
    private sealed class Part(IBlockDevice disk, long sizeBytes) : IBlockDevice
    {
        private volatile bool _isHeld;

        internal bool IsHeld
        {
            set => _isHeld = value;
        }

        public BlockDeviceInfo Info => disk.Info with { SizeBytes = sizeBytes };

        public int MaxQueues => disk.MaxQueues;

        public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => new Queue(this, disk.OpenQueue(depth, buffers));

        public void Dispose()
        {
        }

        private sealed class Queue(Part part, IBlockQueue queue) : IBlockQueue
        {
            public int Outstanding => queue.Outstanding;

            public bool TrySubmit(in BlockRequest request) => queue.TrySubmit(request);

            public int Poll(Span<BlockCompletion> completions) => part._isHeld ? 0 : queue.Poll(completions);

            public void Wait(int timeoutMicroseconds) => queue.Wait(timeoutMicroseconds);

            public void Interrupt() => queue.Interrupt();

            public void Dispose() => queue.Dispose();
        }
    }
}
