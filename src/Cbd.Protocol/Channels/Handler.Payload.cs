using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <content>Payload between the pools and private memory.</content>
internal sealed partial class Handler<TMemory, TPolicy>
{
    /// <summary>
    /// Does a read or a write of a disk in memory without a buffer of ours between it and the pool, and answers it; false if
    /// it is to be submitted.
    /// </summary>
    private bool TryInMemory(IBlocksInMemory disk, in CommandLine command)
    {
        switch (command.Operation)
        {
            case BlockOperation.Read when disk.TryBeginRead(command.Offset, command.Length):
                uint crc = StoreBlocks(disk, command);
                Answer(command.Sequence, command.Tag, 0, crc, command.PayloadLength);
                return true;
            case BlockOperation.Write when _backend.FlushError == 0 && disk.TryBeginWrite(command.Offset, command.Length):
                bool arrived = TakeBlocks(disk, command);
                if (arrived)
                    disk.EndWrite();
                else
                    disk.AbandonWrite();
                Answer(command.Sequence, command.Tag, arrived ? 0 : Errno.EBADMSG, 0, 0);
                return true;
            default:
                return false;
        }
    }

    private uint StoreBlocks(IBlocksInMemory disk, in CommandLine command)
    {
        uint crc = uint.MaxValue;
        for (uint done = 0; done < command.PayloadLength;)
        {
            ReadOnlySpan<byte> run = disk.NextToRead();
            uint continued = StorePayload(command.PayloadOffset + done, run, crc);
            if (!disk.ConfirmRead())
                continue;
            crc = continued;
            done += (uint)run.Length;
        }

        return crc;
    }

    private bool TakeBlocks(IBlocksInMemory disk, in CommandLine command)
    {
        uint crc = uint.MaxValue;
        for (uint done = 0; done < command.PayloadLength;)
        {
            Span<byte> run = disk.NextToWrite();
            crc = TakePayload(command.PayloadOffset + done, run, crc);
            done += (uint)run.Length;
        }

        return IsWhole(command, crc);
    }

    /// <summary>Copies the payload of a write once, into private memory, and checks it there.</summary>
    private bool CopyPayload(in CommandLine command, Span<byte> destination)
    {
        if (!IsWhole(command, TakePayload(command.PayloadOffset, destination, uint.MaxValue)))
            return false;
        if (!TPolicy.CopyOnce)
            _memory.Read(_layout.WritePoolOffset + command.PayloadOffset, destination);
        return true;
    }

    /// <summary>Whether what was copied is what the blkdev has sent.</summary>
    private bool IsWhole(in CommandLine command, uint crc) => _geometry.PayloadCrc
        ? !TPolicy.CheckCrc || crc == command.PayloadCrc
        // No CRC tells the zeroes of a failed memory from data: they must not reach the disk.
        : !_memory.IsPoisoned;

    /// <summary>Copies payload out of the write pool; returns its CRC (continuing <paramref name="crc"/>), 0 without payload CRC.</summary>
    private uint TakePayload(uint poolOffset, Span<byte> destination, uint crc)
    {
        long at = _layout.WritePoolOffset + poolOffset;
        if (_geometry.PayloadCrc)
            return _memory.ReadWithCrc(at, destination, crc);
        _memory.Read(at, destination);
        return 0;
    }

    /// <summary>Copies payload into the read pool; returns its CRC (continuing <paramref name="crc"/>), 0 without payload CRC.</summary>
    private uint StorePayload(uint poolOffset, ReadOnlySpan<byte> payload, uint crc)
    {
        long at = _layout.ReadPoolOffset + poolOffset;
        if (_geometry.PayloadCrc)
            return _memory.WriteWithCrc(at, payload, crc);
        _memory.Write(at, payload);
        return 0;
    }
}
