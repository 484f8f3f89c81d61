using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Cbd.Exports.Kernel;
using Cbd.Memory;

namespace Cbd.Exports.Ublk;

/// <summary>
/// /dev/ublk-control: makes, starts, stops, lists and removes devices. One thread at a time. Calls return 0 or a
/// negative errno of the kernel, or throw where the caller could do nothing with it.
/// </summary>
internal sealed class UblkControl : IDisposable
{
    /// <summary>
    /// Longest wait for a command. A start reads the partition table from the device, whose backend may be away; a stop
    /// waits for what is in flight.
    /// </summary>
    internal const int CommandTimeoutMs = 60_000;

    /// <summary>Buffers of commands that did not end: the kernel may store into them still.</summary>
    private static readonly List<NativeBuffer> s_abandoned = [];

    private readonly FileDescriptor _file;
    private readonly IoUring _ring;
    private readonly NativeBuffer _buffer = new(NativeBuffer.AlignmentBytes);
    private bool _isAbandoned;

    private UblkControl(FileDescriptor file, IoUring ring)
    {
        _file = file;
        _ring = ring;
    }

    /// <summary>Null, and what is missing, if this kernel or process cannot do it.</summary>
    internal static UblkControl? TryOpen(out string whyNot)
    {
        FileDescriptor? file = KernelSupport.TryOpenNode(
            UblkProtocol.ControlNode, UblkProtocol.Module, " (Linux 6.5 or later with CONFIG_BLK_DEV_UBLK)", out whyNot);
        if (file is null)
            return null;
        int error = IoUring.TryCreateWide(4, out IoUring? ring);
        if (error == 0)
            error = ring!.RegisterFile(file);
        if (error != 0)
        {
            ring?.Dispose();
            file.Dispose();
            whyNot = $"io_uring with 128-byte entries is refused (errno {-error}): it needs Linux 5.19, /proc/sys/kernel/io_uring_disabled 0, and a container profile that allows it";
            return null;
        }

        return new UblkControl(file, ring!);
    }

    /// <summary>What this kernel's ublk can do.</summary>
    internal int GetFeatures(out ulong features)
    {
        _buffer.GetSpan(0, sizeof(ulong)).Clear();
        int result = Run(UblkProtocol.GetFeatures, UblkProtocol.AnyDevice, sizeof(ulong));
        features = result == 0 ? MemoryMarshal.Read<ulong>(_buffer.GetSpan(0, sizeof(ulong))) : 0;
        return result;
    }

    /// <summary>Makes a device, which has a server side and no disk yet. The kernel completes <paramref name="info"/>.</summary>
    internal int Add(ref UblkDeviceInfo info)
    {
        info.Device = UblkProtocol.AnyDevice;
        Span<byte> place = _buffer.GetSpan(0, Unsafe.SizeOf<UblkDeviceInfo>());
        MemoryMarshal.Write(place, in info);
        int result = Run(UblkProtocol.AddDevice, info.Device, place.Length);
        if (result == 0)
            info = MemoryMarshal.Read<UblkDeviceInfo>(place);
        return result;
    }

    internal int GetInfo(uint device, out UblkDeviceInfo info)
    {
        Span<byte> place = _buffer.GetSpan(0, Unsafe.SizeOf<UblkDeviceInfo>());
        place.Clear();
        int result = Run(UblkProtocol.GetDeviceInfo, device, place.Length);
        info = result == 0 ? MemoryMarshal.Read<UblkDeviceInfo>(place) : default;
        return result;
    }

    internal int SetParameters(uint device, in UblkParameters parameters)
    {
        MemoryMarshal.Write(_buffer.GetSpan(0, UblkParameters.SizeBytes), in parameters);
        return Run(UblkProtocol.SetParameters, device, UblkParameters.SizeBytes);
    }

    /// <summary>Makes the disk. Returns when every queue has asked for all its requests.</summary>
    internal int Start(uint device) => Run(UblkProtocol.StartDevice, device, 0, (ulong)Environment.ProcessId);

    /// <summary>
    /// Makes a device whose server has ended ready for another one. EBUSY while the kernel still holds what the old one had; EINVAL too where
    /// that was done before and no queue was served since.
    /// </summary>
    internal int StartRecovery(uint device) => Run(UblkProtocol.StartUserRecovery, device, 0);

    /// <summary>Goes on with the device. Returns when every queue has asked for all its requests.</summary>
    internal int EndRecovery(uint device) => Run(UblkProtocol.EndUserRecovery, device, 0, (ulong)Environment.ProcessId);

    /// <summary>Removes the disk, after what is in flight was answered; then all fetches end.</summary>
    internal int Stop(uint device) => Run(UblkProtocol.StopDevice, device, 0);

    /// <summary>Removes a stopped device; it is gone when the last user has closed it.</summary>
    internal int Delete(uint device)
    {
        int result = Run(UblkProtocol.DeleteDeviceLater, device, 0);
        // Older than 6.9: it is waited for.
        return result is -Errno.EOPNOTSUPP or -Errno.EINVAL ? Run(UblkProtocol.DeleteDevice, device, 0) : result;
    }

    internal int UpdateSize(uint device, long sizeBytes) =>
        Run(UblkProtocol.UpdateSize, device, 0, (ulong)sizeBytes >> UblkProtocol.SectorShift);

    public void Dispose()
    {
        _ring.Dispose();
        _file.Dispose();
        if (_isAbandoned)
        {
            lock (s_abandoned)
                s_abandoned.Add(_buffer);
        }
        else
        {
            _buffer.Dispose();
        }
    }

    private int Run(uint code, uint device, int bufferBytes, ulong value = 0)
    {
        if (_isAbandoned)
            return -Errno.ETIMEDOUT;
        var command = new UblkControlCommand
        {
            Device = device,
            Queue = UblkProtocol.NoQueue,
            BufferBytes = (ushort)bufferBytes,
            Buffer = bufferBytes == 0 ? 0 : (ulong)_buffer.Address,
            Value = value,
        };
        int result = _ring.RunCommand(code, MemoryMarshal.AsBytes(new ReadOnlySpan<UblkControlCommand>(in command)), CommandTimeoutMs);
        _isAbandoned = result == -Errno.ETIMEDOUT;
        return result;
    }
}
