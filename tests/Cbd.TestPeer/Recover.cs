using System.Globalization;
using System.Runtime.InteropServices;
using Cbd.Exports.Ublk;
using Cbd.Memory;

namespace Cbd.TestPeer;

/// <summary>
/// <c>recover NUMBER QUEUES</c>: a successor that dies between the start and the end of taking /dev/ublkbNUMBER over, after it has asked for the requests of
/// the first QUEUES queues.
/// </summary>
internal static class Recover
{
    private const int WaitMs = 10_000;
    private const int PauseMs = 10;

    internal static int Run(string[] arguments)
    {
        (uint number, int queues) = (uint.Parse(arguments[0]), int.Parse(arguments[1]));
        using UblkControl control = UblkControl.TryOpen(out string whyNot) ?? throw new CbdException(CbdErrorKind.Unsupported, whyNot);
        int result;
        for (int waited = 0; (result = control.StartRecovery(number)) == -Errno.EBUSY && waited < WaitMs; waited += PauseMs)
            Thread.Sleep(PauseMs);
        if (result != 0)
            throw new CbdException(CbdErrorKind.Failed, $"START_USER_RECOVERY ended with {result}");
        int error = FileDescriptor.TryOpen($"/dev/ublkc{number.ToString(CultureInfo.InvariantCulture)}", OpenFlags.ReadWrite, 0, out FileDescriptor? server);
        if (error != 0)
            throw new CbdException(CbdErrorKind.Failed, $"the server's side cannot be opened: {error}");
        using var payload = new NativeBuffer(UblkPump.Depth * 4096);
        for (int queue = 0; queue < queues; queue++)
            Fetch(server!, payload, (ushort)queue);
        Console.WriteLine("begun");
        Thread.Sleep(Timeout.Infinite);
        return 0;
    }

    private static void Fetch(FileDescriptor server, NativeBuffer payload, ushort queue)
    {
        int error = IoUring.TryCreate(UblkPump.Depth, out IoUring? ring);
        if (error == 0)
            error = ring!.RegisterFile(server);
        if (error != 0)
            throw new CbdException(CbdErrorKind.Failed, $"no ring: {error}");
        for (int tag = 0; tag < UblkPump.Depth; tag++)
        {
            var command = new UblkIoCommand { Queue = queue, Tag = (ushort)tag, Address = (ulong)payload.Address };
            if (!ring!.PrepareCommand(UblkProtocol.FetchRequest, MemoryMarshal.AsBytes(new ReadOnlySpan<UblkIoCommand>(in command)), (ulong)tag))
                throw new CbdException(CbdErrorKind.Failed, "the ring is full");
        }

        ring!.EnterAtOnce();
    }
}
