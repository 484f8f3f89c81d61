using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Exports.Fuse;

namespace Cbd.Fuzz;

/// <summary>The gate that everything from /dev/fuse passes: what goes to the device is inside of it.</summary>
internal sealed class FuseTarget : IFuzzTarget
{
    private const int MaxTransferBytes = 65536;
    private static readonly BlockDeviceInfo[] s_devices =
    [
        new() { SizeBytes = 1 << 20, LogicalBlockBytes = 4096, CanZeroFast = true },
        new() { SizeBytes = 3 << 9, LogicalBlockBytes = 512 },
        new() { SizeBytes = long.MaxValue / 4096 * 4096, LogicalBlockBytes = 4096, ReadOnly = true },
    ];

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        byte mode = fields.Byte();
        byte[] message = fields.Rest().ToArray();
        if ((mode & 4) != 0 && message.Length >= 4)
            MemoryMarshal.Write(message, (uint)message.Length);
        BlockDeviceInfo device = s_devices[(mode & 3) % s_devices.Length];
        if (!FuseRequest.TryParse(message, device, MaxTransferBytes, "cbd0"u8, out FuseRequest request) || request.Task != FuseTask.Device)
            return;
        FuzzTargets.Check(request.Offset >= 0 && request.Offset <= device.SizeBytes, "the offset is on the device");
        FuzzTargets.Check(request.Length >= (request.Operation == BlockOperation.Flush ? 0 : 1), "there is something to do");
        FuzzTargets.Check(request.Length <= device.SizeBytes - request.Offset, "the end is on the device");
        FuzzTargets.Check((request.Offset | request.Length) % device.LogicalBlockBytes == 0, "it is whole blocks");
        FuzzTargets.Check(request.Operation is not (BlockOperation.Read or BlockOperation.Write) || request.Length <= MaxTransferBytes, "the payload fits");
        FuzzTargets.Check(request.Operation != BlockOperation.Write || FuseRequest.WritePayloadOffset + request.Length <= message.Length, "the payload is there");
        FuzzTargets.Check(!device.ReadOnly || request.Operation is BlockOperation.Read or BlockOperation.Flush, "a read-only device is not written");
    }
}
