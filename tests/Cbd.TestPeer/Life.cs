using System.Diagnostics;
using System.Globalization;
using Cbd.Blocks;
using Cbd.Exports.Fuse;
using Cbd.Exports.Kernel;
using Cbd.Host;
using Cbd.Host.Attachments;
using Cbd.Memory;

namespace Cbd.TestPeer;

/// <summary>
/// <c>life DISK_FD SIZE QUEUES LIFE [NAME=FD...] [slow] [poison=OFFSET] [counts] [private]</c>: serves the first SIZE bytes of an inherited memfd by fuse,
/// in a life that its parent keeps. Prints <c>keep NAME FD</c> for each descriptor of a new life and reads a line, which says that they are
/// kept; goes on with the descriptors that it was given otherwise. Prints the node, then one answer for each line: <c>stop</c>, <c>force</c>,
/// <c>park</c>, <c>resize SIZE</c>, <c>abandon</c>. <c>slow</c>: requests stay at the device for a while, and end in another order;
/// <c>poison</c>: a write there ends the process; <c>counts</c>: requests that were in flight at a death are counted;
/// <c>private</c>: nothing is kept.
/// </summary>
internal static class Life
{
    private static readonly Guid s_host = new("0f5d4c3b-2a19-4876-a5b4-c3d2e1f00112");

    internal static int Run(string[] words)
    {
        using SealedMemory disk = SealedMemory.Open(FileDescriptor.Own(Number(words[0]), "disk"), "disk", 4096, 1 << 30);
        var device = new MemoryDevice(disk.Buffer, long.Parse(words[1], CultureInfo.InvariantCulture))
        {
            IsSlow = words.Contains("slow"),
            Poison = words.FirstOrDefault(word => word.StartsWith("poison=", StringComparison.Ordinal)) is { } poison ? Number(poison[7..]) : -1,
        };
        var life = new AttachmentLife
        {
            Host = s_host,
            Id = ulong.Parse(words[3], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture),
            CountsDeaths = words.Contains("counts"),
            Given = [.. words.Skip(4).Where(word => word.StartsWith("fuse-", StringComparison.Ordinal) || word.StartsWith("inflight-", StringComparison.Ordinal)).Select(Given)],
            Keep = words.Contains("private") ? null : Keep,
            Forget = names => Console.WriteLine($"forget {string.Join(' ', names)}"),
        };
        var lives = new AttachmentLives(s_host);
        var kind = new FuseAttachKind(lives: lives);
        // What another life of this host left.
        lives.Add(life.Id);
        foreach (KernelLeftover leftover in kind.FindLeftovers(Console.Error.WriteLine))
            Console.Error.WriteLine(leftover.Remove());
        using IKernelAttachment attachment = kind.Open(
            new KernelExportOptions { Name = "peer", Region = Guid.Empty, Life = life, Log = Console.Error.WriteLine });
        try
        {
            attachment.Serve(device, Number(words[2]), PollMode.Sleep);
            Console.WriteLine(attachment.Node);
        }
        catch (CbdException error)
        {
            Console.WriteLine($"error {error.Message}");
        }

        while (Console.ReadLine() is { } line)
        {
            string answer = "ok";
            try
            {
                switch (line.Split(' '))
                {
                    case ["resize", var size]:
                        device.SizeBytes = long.Parse(size, CultureInfo.InvariantCulture);
                        attachment.Resize();
                        break;
                    case ["park"]:
                        answer = attachment.TryPark() ? "ok" : "not parked";
                        break;
                    case ["abandon"]:
                        attachment.Abandon();
                        break;
                    default:
                        attachment.Stop(force: line == "force");
                        break;
                }
            }
            catch (CbdException error)
            {
                answer = $"error {error.Message}";
            }

            Console.WriteLine(answer);
        }

        return 0;
    }

    private static void Keep(IReadOnlyList<KeptDescriptor> descriptors)
    {
        foreach (KeptDescriptor kept in descriptors)
            Console.WriteLine($"keep {kept.Name} {kept.Descriptor.Number}");
        Console.WriteLine("confirm");
        _ = Console.ReadLine();
    }

    private static KeptDescriptor Given(string word)
    {
        string[] parts = word.Split('=');
        var descriptor = FileDescriptor.Own(Number(parts[1]), parts[0]);
        descriptor.SetInherited(false);
        return new KeptDescriptor(parts[0], descriptor);
    }

    private static int Number(string word) => int.Parse(word, CultureInfo.InvariantCulture);

    /// <summary>Memory that outlives the process; what is stored there at any moment is what a successor finds.</summary>
    private sealed class MemoryDevice(NativeBuffer memory, long sizeBytes) : IBlockDevice
    {
        internal bool IsSlow { get; init; }

        internal long Poison { get; init; }

        internal long SizeBytes { get; set; } = sizeBytes;

        public BlockDeviceInfo Info => new() { SizeBytes = SizeBytes, LogicalBlockBytes = 4096, CanDiscard = true, CanZeroFast = true, MaxTransferBytes = 1 << 20 };

        public int MaxQueues => int.MaxValue;

        public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => new Queue(this);

        public void Dispose()
        {
        }

        private void Execute(in BlockRequest request)
        {
            if (request.Operation == BlockOperation.Write && request.Offset == Poison)
                Process.GetCurrentProcess().Kill();
            // In pieces, between which the process may end.
            for (int at = 0; at < request.Length && request.Operation != BlockOperation.Flush; at += 512)
            {
                Span<byte> blocks = memory.GetSpan(request.Offset + at, 512);
                if (request.Operation == BlockOperation.Read)
                    blocks.CopyTo(request.Data.Span[at..]);
                else if (request.Operation == BlockOperation.Write)
                    request.Data.Span.Slice(at, 512).CopyTo(blocks);
                else
                    blocks.Clear();
            }
        }

        private sealed class Queue(MemoryDevice device) : IBlockQueue
        {
            private readonly List<BlockRequest> _requests = new(256);
            private readonly Random _random = new();

            public int Outstanding => _requests.Count;

            public bool TrySubmit(in BlockRequest request)
            {
                if (device.IsSlow && _requests.Count >= 48)
                    return false;
                _requests.Add(request);
                return true;
            }

            public int Poll(Span<BlockCompletion> completions)
            {
                int count = 0;
                int limit = device.IsSlow ? _random.Next(_requests.Count + 1) : completions.Length;
                while (_requests.Count > 0 && count < Math.Min(limit, completions.Length))
                {
                    int index = device.IsSlow ? _random.Next(_requests.Count) : 0;
                    BlockRequest request = _requests[index];
                    device.Execute(request);
                    _requests.RemoveAt(index);
                    completions[count++] = new BlockCompletion(request.Cookie, 0, request.Operation == BlockOperation.Read ? (int)request.Length : 0);
                }

                return count;
            }

            public void Wait(int timeoutMicroseconds) => Thread.Sleep(0);

            public void Interrupt()
            {
            }

            public void Dispose()
            {
            }
        }
    }
}
