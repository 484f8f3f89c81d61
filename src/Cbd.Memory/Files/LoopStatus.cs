namespace Cbd.Memory;

/// <summary>What is below a loop device (LOOP_GET_STATUS64).</summary>
/// <param name="Device">Device of the file system that the file is in, in the coding of <c>new_encode_dev</c>.</param>
/// <param name="Inode">Inode of the file.</param>
/// <param name="OffsetBytes">Where in the file the device begins.</param>
/// <param name="LimitBytes">How long it is at most; 0: to the file's end.</param>
public readonly record struct LoopStatus(ulong Device, ulong Inode, ulong OffsetBytes, ulong LimitBytes)
{
    /// <summary>It is that file.</summary>
    public bool IsOn(in FileStatus file) =>
        Inode == file.Inode && Device == ((file.DeviceMinor & 0xff) | (file.DeviceMajor << 8) | ((file.DeviceMinor & ~0xffu) << 12));
}
